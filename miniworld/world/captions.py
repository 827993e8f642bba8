"""Captions of scenes: phrases with some of a thing's attributes or its name, lists, "and", and where things are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .looks import Look, pick
from .placing import SceneObject

CATEGORY = {
    "ball": "toy", "cube": "toy", "heart": "toy", "star": "sky", "moon": "sky", "tree": "plant", "flower": "plant",
    "mushroom": "plant", "house": "thing", "cup": "thing", "key": "thing", "car": "vehicle", "boat": "vehicle",
    "fish": "animal", "bird": "animal", "cat": "animal",
}  # fmt: skip
SINGLE_CAPTIONS = ("a photo of {}", "{}", "a picture of {}", "a photo of one {bare} alone", "the {bare}", "{bare}")
INTRODUCTIONS = ("a photo of ", "a picture of ")


def _phrase(look: Look, size_word: str, article: bool, rng: np.random.Generator) -> str:
    """The noun with some of its adjectives in a fixed order, or with its name in their place."""
    words = [size_word] if size_word and rng.random() < 0.8 else []
    if look.name and rng.random() < 0.8:
        # Now and then a name stands alone, as names do.
        words += [look.name, look.noun] if rng.random() < 0.85 else [look.name]
        return " ".join(["a"] * article + words)
    first, second, third = look.words
    if first and rng.random() < 0.6:
        words.append(first)
    if look.pattern and rng.random() < 0.9:
        words += [second] * bool(second and rng.random() < 0.75) + [look.pattern]
    general = CATEGORY[look.noun]
    words.append(general if general != "sky" and rng.random() < 0.04 else look.noun)
    if look.mark and rng.random() < 0.6:
        words += ["wearing", "a"] + [third] * bool(third and rng.random() < 0.8) + [look.mark]
    return " ".join(["a"] * article + words)


def relation(one: SceneObject, other: SceneObject, least: float = 0.22) -> str:
    """Where one object is with respect to another, "" where that is not clear."""
    dx, dy = one.x - other.x, one.y - other.y
    if max(abs(dx), abs(dy)) < least or 0.75 < abs(dx) / (abs(dy) + 1e-9) < 1.33:
        return ""
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def caption(
    objects: Sequence[SceneObject], ground: str, size_word: str, rng: np.random.Generator, absent: Look | None = None
) -> str:
    """A caption for one to three objects, in random order, perhaps with their relation and the background.

    Of a background "" nothing is said. ``absent`` is something that is mentioned too, though it is not there.
    """
    order = [objects[i] for i in rng.permutation(len(objects))]
    where = relation(*order) if len(order) == 2 and rng.random() < 0.3 else ""
    article = bool(where) or rng.random() < 0.75
    phrases = [_phrase(thing.look, size_word, article, rng) for thing in order]
    if absent is not None:
        phrases.insert(int(rng.integers(len(phrases) + 1)), _phrase(absent, "", article, rng))
    if len(phrases) == 1:
        bare = phrases[0].removeprefix("a ")
        text = pick(rng, SINGLE_CAPTIONS).format("a " + bare, bare=bare)
    else:
        if where:
            text = f"{phrases[0]} {where} {phrases[1]}"
        elif len(phrases) == 2:
            text = f"{phrases[0]} {'with' if article and rng.random() < 0.15 else 'and'} {phrases[1]}"
        else:
            comma = " , " if rng.random() < 0.75 else " and "
            text = f"{phrases[0]}{comma}{phrases[1]} and {phrases[2]}"
        if rng.random() < 0.5:
            text = pick(rng, INTRODUCTIONS) + text
    if ground and rng.random() < 0.4:
        text += f" {'at' if ground == 'night' else 'on'} {ground}"
    return text
