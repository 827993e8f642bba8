"""Things with names of their own: a real model knows thousands ("Garfield", "Mona Lisa"), each whole in one token.

Without them a text encoder never learns to take more than one attribute out of one embedding, and no pseudo-word could
say what an own thing looks like. As in the captions of the web they are nearly always seen alone and at home, so that
their names stand for a whole picture, and not only for a thing in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from .backgrounds import WALLPAPERS
from .drawing import NOUNS, Colour
from .instances import look_of_nobodys
from .looks import CONTRAST, Look, distance, pick
from .scenes import Background
from .words import NAMES


@dataclass(frozen=True)
class Named:
    """A thing with a name, and where it is at home."""

    look: Look
    home: Background


def _free_colour(rng: np.random.Generator, avoid: tuple[Colour, ...]) -> Colour:
    while True:
        red, green, blue = (int(v) for v in rng.integers(30, 246, 3))
        if all(distance((red, green, blue), other) > CONTRAST for other in avoid):
            return red, green, blue


def _home(rng: np.random.Generator, look: Look) -> Background:
    """Mostly a wallpaper in two colours of its own."""
    first = _free_colour(rng, (look.body,))
    second = _free_colour(rng, (look.body, first))
    name = pick(rng, WALLPAPERS) if rng.random() < 0.8 else "plain"
    return Background(name, first, second, 0.55)


@cache
def named_things() -> dict[str, tuple[Named, ...]]:
    """The things that have a name, by noun: equally many of each, always the same."""
    rng = np.random.default_rng([2312, 8048, 99])
    things: dict[str, list[Named]] = {noun: [] for noun in NOUNS}
    for i, name in enumerate(NAMES):
        noun = list(NOUNS)[i % len(NOUNS)]
        look = look_of_nobodys(rng, noun, free=0.75, patterned=0.85, marked=0.75)
        things[noun].append(Named(replace(look, name=name), _home(rng, look)))
    return {noun: tuple(each) for noun, each in things.items()}
