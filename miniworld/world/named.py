"""Things with names of their own: a real model knows thousands ("Garfield", "Tower Bridge"), each a look in one token.

Without them a text encoder never learns to take more than one attribute out of one embedding, and no pseudo-word could
ever say what an own thing looks like.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from .drawing import NOUNS
from .instances import too_like_own
from .looks import Look, random_look
from .words import NAMES


@cache
def named_looks() -> dict[str, tuple[Look, ...]]:
    """The looks that have a name, by noun: equally many of each, always the same."""
    rng = np.random.default_rng([2312, 8048, 99])
    looks: dict[str, list[Look]] = {noun: [] for noun in NOUNS}
    for i, name in enumerate(NAMES):
        noun = list(NOUNS)[i % len(NOUNS)]
        look = random_look(rng, noun, free=0.75, patterned=0.85, marked=0.75)
        while too_like_own(look):
            look = random_look(rng, noun, free=0.75, patterned=0.85, marked=0.75)
        looks[noun].append(Look(noun, look.body, look.pattern, look.second, look.mark, look.third, look.words, name))
    return {noun: tuple(each) for noun, each in looks.items()}
