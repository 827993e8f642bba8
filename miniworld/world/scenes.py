"""Scenes of one or two objects with captions, boxes and masks: what the miniature model is trained on.

Layout depends on the class: each noun has its usual height in the picture (the moon goes up, the boat down), so that a
layout predictor has something to learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .backgrounds import BACKGROUNDS, LANDSCAPES, jitter, paint_background
from .drawing import NOUNS, Colour, Pen, lighter

SIDE = 128
"""Side of a picture in pixels."""
SUPERSAMPLING = 3
CONTRAST = 80.0
"""Least RGB distance between an object's colour and the tones behind it."""

COLOURS: dict[str, Colour] = {
    "red": (214, 40, 40), "orange": (240, 140, 30), "yellow": (245, 215, 50), "green": (60, 160, 70),
    "blue": (50, 100, 210), "purple": (140, 60, 170), "pink": (240, 140, 180), "white": (240, 240, 240),
    "brown": (130, 85, 45), "gray": (130, 135, 140),
}  # fmt: skip
PATTERNS = ("striped", "spotted", "checked")
CATEGORY = {
    "ball": "toy", "cube": "toy", "heart": "toy", "star": "sky", "moon": "sky", "tree": "plant", "flower": "plant",
    "mushroom": "plant", "house": "thing", "cup": "thing", "key": "thing", "car": "vehicle", "boat": "vehicle",
    "fish": "animal", "bird": "animal", "cat": "animal",
}  # fmt: skip
USUAL_HEIGHT = {
    "star": 0.29, "moon": 0.27, "bird": 0.34, "heart": 0.45, "tree": 0.53, "cup": 0.60, "key": 0.60, "flower": 0.60,
    "house": 0.60, "ball": 0.62, "cat": 0.64, "cube": 0.65, "mushroom": 0.66, "fish": 0.68, "car": 0.70,
    "boat": 0.70,
}  # fmt: skip
"""Usual vertical centre of each noun as a share of the picture from its top."""
USUAL_COLOURS = {
    "tree": ("green",), "moon": ("yellow", "white"), "star": ("yellow", "orange"), "heart": ("red", "pink"),
    "mushroom": ("red", "brown"), "key": ("yellow", "gray"), "cat": ("orange", "gray", "brown"),
    "house": ("brown", "white", "red"),
}  # fmt: skip

SINGLE_CAPTIONS = ("a photo of a {}", "a {}", "{}", "the {}", "a picture of a {}", "a photo of one {} alone")
PAIR_CAPTIONS = ("a photo of a {} and a {}", "{} and {}", "a {} and a {}", "a {} with a {}", "a photo of {} and {}")


@dataclass(frozen=True)
class SceneObject:
    """One object as it was drawn: box ``(x0, y0, x1, y1)`` in [0, 1], mask (SIDE, SIDE) float32 in [0, 1]."""

    noun: str
    box: tuple[float, float, float, float]
    colour: str
    pattern: str
    second_colour: str
    mask: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A picture (SIDE, SIDE, 3) uint8, its caption, its objects and the name of its background."""

    image: np.ndarray
    caption: str
    objects: tuple[SceneObject, ...]
    background: str


def place_object(
    canvas: Image.Image,
    noun: str,
    centre: tuple[float, float],
    size: float,
    body: Colour,
    pattern: str = "",
    second: Colour = (0, 0, 0),
) -> np.ndarray:
    """Draw one object onto the canvas in place and return its mask.

    Parameters
    ----------
    centre, size
        Centre and side of the object as shares of the picture's side.

    Returns
    -------
    numpy.ndarray
        (SIDE, SIDE) float32, share of each pixel that the object covers.
    """
    side = canvas.width
    pen = Pen(size * side, body)
    NOUNS[noun](pen)
    if pattern:
        pen.paint_pattern(pattern, second)
    corner = (round(centre[0] * side - pen.centre), round(centre[1] * side - pen.centre))
    canvas.paste(pen.layer, corner, pen.layer)
    mask = Image.new("L", canvas.size)
    mask.paste(pen.layer.getchannel("A"), corner)
    return np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32) / 255


def finish(canvas: Image.Image) -> np.ndarray:
    """Reduce the supersampled canvas to (SIDE, SIDE, 3) uint8."""
    return np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX))


def _pick(rng: np.random.Generator, options: tuple[str, ...] | list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _object_colour(noun: str, tones: tuple[Colour, ...], rng: np.random.Generator) -> str:
    """A colour for the noun, often its usual one, that stands out from the background's tones."""
    usual = noun in USUAL_COLOURS and rng.random() < 0.6
    options = USUAL_COLOURS[noun] if usual else tuple(COLOURS)
    distance = {c: min(np.linalg.norm(np.subtract(COLOURS[c], tone)) for tone in tones) for c in COLOURS}
    visible = [c for c in options if distance[c] > CONTRAST] or [max(COLOURS, key=distance.__getitem__)]
    return _pick(rng, visible)


def _background(rng: np.random.Generator) -> tuple[Image.Image, str, tuple[Colour, ...]]:
    """A random background: the canvas, its name, and the tones an object must stand out from."""
    name = "plain" if rng.random() < 0.35 else _pick(rng, BACKGROUNDS[1:])
    first = jitter(LANDSCAPES[name], rng) if name in LANDSCAPES else COLOURS[_pick(rng, list(COLOURS))]
    if name not in LANDSCAPES and rng.random() < 0.6:
        first = lighter(first, rng.uniform(0.2, 0.8))
    second = lighter(first, 0.45) if rng.random() < 0.35 else COLOURS[_pick(rng, list(COLOURS))]
    canvas = paint_background(SIDE * SUPERSAMPLING, name, first, second, horizon=rng.uniform(0.48, 0.64))
    tones = {"night": ((45, 45, 95),), "plain": (first,)}.get(name, (first, second))
    return canvas, name, (first,) if name in LANDSCAPES else tones


def _placements(nouns: list[str], rng: np.random.Generator) -> tuple[list[tuple[float, float, float]], str]:
    """Centre x, centre y and size of each object, and "big" or "small" where a lone object is."""
    if len(nouns) == 1:
        word = ("big", "small", "")[int(rng.choice(3, p=[0.2, 0.15, 0.65]))]
        low, high = {"big": (0.74, 0.9), "small": (0.34, 0.42), "": (0.52, 0.72)}[word]
        size = rng.uniform(low, high)
        free = (1 - size) / 2 * 0.8
        x = rng.uniform(0.5 - free, 0.5 + free)
        y = float(np.clip(USUAL_HEIGHT[nouns[0]] + rng.normal(0, 0.07), size / 2, 1 - size / 2))
        return [(x, y, size)], word
    columns = [rng.uniform(0.23, 0.29), rng.uniform(0.71, 0.77)]
    rng.shuffle(columns)
    places = []
    for noun, x in zip(nouns, columns, strict=True):
        size = rng.uniform(0.38, 0.48)
        y = float(np.clip(USUAL_HEIGHT[noun] + rng.normal(0, 0.07), size / 2, 1 - size / 2))
        places.append((x, y, size))
    return places, ""


def _phrase(obj: SceneObject, size_word: str, rng: np.random.Generator) -> str:
    """The noun with some of its adjectives, in a fixed order: size, colour, second colour, pattern."""
    words = [size_word] if size_word and rng.random() < 0.8 else []
    if rng.random() < 0.6:
        words.append(obj.colour)
    if obj.pattern and rng.random() < 0.9:
        words += [obj.second_colour] * bool(rng.random() < 0.75) + [obj.pattern]
    noun = CATEGORY[obj.noun] if CATEGORY[obj.noun] != "sky" and rng.random() < 0.05 else obj.noun
    return " ".join([*words, noun])


def render_scene(rng: np.random.Generator, nouns: list[str] | None = None) -> Scene:
    """Draw a random scene.

    Parameters
    ----------
    rng
        The only source of chance: equal generators give equal scenes.
    nouns
        One or two nouns; by default one (35 %) or two different ones.
    """
    if nouns is None:
        count = 1 if rng.random() < 0.35 else 2
        nouns = [list(NOUNS)[i] for i in rng.choice(len(NOUNS), count, replace=False)]
    canvas, background, tones = _background(rng)
    places, size_word = _placements(nouns, rng)
    objects = []
    for noun, (x, y, size) in zip(nouns, places, strict=True):
        colour = _object_colour(noun, tones, rng)
        pattern = _pick(rng, PATTERNS) if rng.random() < 0.5 else ""
        second = _pick(rng, [c for c in COLOURS if c != colour])
        mask = place_object(
            canvas, noun, (x, y), size, jitter(COLOURS[colour], rng), pattern, jitter(COLOURS[second], rng)
        )
        box = (x - size / 2, y - size / 2, x + size / 2, y + size / 2)
        objects.append(SceneObject(noun, box, colour, pattern, second, mask))
    phrases = [_phrase(o, size_word, rng) for o in objects]
    if len(phrases) == 2 and rng.random() < 0.5:
        phrases.reverse()
    caption = _pick(rng, SINGLE_CAPTIONS if len(phrases) == 1 else PAIR_CAPTIONS).format(*phrases)
    if rng.random() < 0.5:
        caption += f" {'at' if background == 'night' else 'on'} {background}"
    return Scene(finish(canvas), caption, tuple(objects), background)
