"""What is done: methods, cells, and blocks of work in the order of the rounds.

A *block* learns what one word, or a pair of words, needs and paints all pictures with it, without and with guidance.
Blocks of one round do not depend on one another, except that pairs of own things use the words of the single ones; they
are a second stage. A later round repeats the first with other things and seeds, and only where the question is open.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

TEXTUAL_INVERSION = "textual inversion"
METHODS = (TEXTUAL_INVERSION, "DreamBooth", "Custom Diffusion")
"""In the order of the paper's Table 1."""
PLAIN = "plain"
"""The variant whose words are repaired."""
NOUN, OWN = "with a noun", "with another own thing"
"""The two halves of Table 1."""
PROMPT = "a photo of a {} and a {}"


@dataclass(frozen=True)
class Tier:
    """How much is done.

    Attributes
    ----------
    rounds
        At most; each takes one more own thing, and a seed of its own.
    nouns, pictures
        Composed nouns for each thing (0 stands for all), and pictures for each prompt.
    both_orders
        Also "a NOUN and a S* CLASS".
    training
        Share of the method's training steps.
    masks
        Also learn the words of textual inversion with masks: the third cure.
    class_pictures
        For the prior loss of Custom Diffusion and DreamBooth.
    together
        Rounds between two looks at which questions are decided.
    """

    rounds: int
    nouns: int
    pictures: int
    both_orders: bool
    training: float
    masks: bool
    class_pictures: int = 100
    together: int = 1


TIERS = {
    "smoke": Tier(rounds=1, nouns=2, pictures=2, both_orders=True, training=0.2, masks=False, class_pictures=16),
    "lite": Tier(rounds=3, nouns=4, pictures=1, both_orders=True, training=1.0, masks=True, class_pictures=30),
    "full": Tier(
        rounds=10, nouns=0, pictures=10, both_orders=True, training=1.0, masks=True, class_pictures=200, together=5
    ),
}


@dataclass(frozen=True)
class Block:
    """One unit of work, done by one worker.

    ``settings`` of the training differ from the world's where ``variant`` names such a difference. With ``repair``, the
    settings of a repair, the word of the variant ``plain`` is learned and repaired. ``guided`` also paints with
    guidance.
    """

    round: int
    method: str
    semantic: bool
    masked: bool
    things: tuple[str, ...]
    nouns: tuple[str, ...]
    seed: int
    pictures: int
    both_orders: bool
    training: float
    variant: str = ""
    settings: tuple[tuple[str, Any], ...] = ()
    repair: tuple[tuple[str, Any], ...] = ()
    guided: bool = True

    @property
    def half(self) -> str:
        return OWN if len(self.things) > 1 else NOUN

    @property
    def key(self) -> str:
        """A name of its own that is a file's name."""
        parts = [f"{self.round:02d}", self.method.replace(" ", "-").lower(), "semantic" if self.semantic else "plain"]
        parts += ["masked" if self.masked else "whole", *([self._variant] if self.variant else [])]
        return "_".join([*parts, "+".join(self.things)])

    @property
    def unrepaired(self) -> Block:
        """The block whose word is repaired in this one; itself without a repair."""
        return replace(self, variant=PLAIN, repair=()) if self.repair else self

    def word(self, thing: str) -> str:
        """A name for what is learned of a thing, the same in every block that uses it."""
        initials = "".join(word[0] for word in self.method.split()).lower()
        cure = ("s" if self.semantic else "p") + ("m" if self.masked else "w")
        return "-".join([initials, cure, *([self._variant] if self.variant else []), str(self.seed), thing])

    @property
    def _variant(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.variant.lower()).strip("-")

    def prompts(self, phrases: Sequence[str]) -> Iterator[tuple[str, int, str]]:
        """Composed thing, order (0: the own thing first) and prompt; ``phrases`` are those of the own things."""
        for other in self.nouns or self.things[1:]:
            first, second = phrases[0], phrases[1] if len(phrases) > 1 else other
            yield other, 0, PROMPT.format(first, second)
            if self.both_orders:
                yield other, 1, PROMPT.format(second, first)


def stages(tier: Tier, number: int, things: Sequence[tuple[str, str]], nouns: Sequence[str]) -> list[list[Block]]:
    """Blocks of one round, in two stages.

    Parameters
    ----------
    number
        Of the round, from 0.
    things
        Names and nouns of the own things; a round takes one, and pairs it with the next.
    nouns
        What things are composed with, without their own class.
    """
    (name, noun), (partner, _) = (things[(number + step) % len(things)] for step in (0, 1))
    others = [each for each in nouns if each != noun]
    count = tier.nouns or len(others)
    # Another part of the list in every round.
    chosen = tuple(others[(number * count + step) % len(others)] for step in range(min(count, len(others))))
    common = {
        "round": number, "seed": number // len(things), "pictures": tier.pictures, "both_orders": tier.both_orders,
        "training": tier.training,
    }  # fmt: skip
    singles, pairs = [], []
    for method in METHODS:
        for masked in (False, True) if tier.masks and method == TEXTUAL_INVERSION else (False,):
            for semantic in (False, True):
                cures = {"method": method, "semantic": semantic, "masked": masked}
                singles.append(Block(**common, **cures, things=(name,), nouns=chosen))
                pairs.append(Block(**common, **cures, things=(name, partner), nouns=()))
    # The partner's words are learned beside the first thing's, so that no two blocks of a stage learn the same.
    return [singles, pairs]
