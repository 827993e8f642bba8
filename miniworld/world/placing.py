"""Where objects stand: places and sizes with little overlap, and drawing one there.

Layout depends on the class: each noun has its usual height in the picture (the moon goes up, the boat down), so that a
layout predictor has something to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .looks import Look, drawn

SIDE = 128
"""Side of a picture in pixels."""
SUPERSAMPLING = 2
USUAL_HEIGHT = {
    "star": 0.29, "moon": 0.27, "bird": 0.34, "heart": 0.45, "tree": 0.53, "cup": 0.60, "key": 0.60, "flower": 0.60,
    "house": 0.60, "ball": 0.62, "cat": 0.64, "cube": 0.65, "mushroom": 0.66, "fish": 0.68, "car": 0.70,
    "boat": 0.70,
}  # fmt: skip
"""Usual vertical centre of each noun as a share of the picture from its top."""
SIZES = {1: (0.42, 0.86), 2: (0.33, 0.5), 3: (0.29, 0.4)}
"""Least and greatest size of an object by the number of objects, as shares of the picture's side."""
SIZE_WORDS = {"big": (0.74, 0.9), "small": (0.3, 0.42)}
"""The same for a lone object that its caption calls so."""


@dataclass(frozen=True)
class SceneObject:
    """One object as it was drawn.

    Centre and size are shares of the picture's side, the mask is (SIDE, SIDE) float32 in [0, 1].
    """

    look: Look
    x: float
    y: float
    size: float
    mask: np.ndarray

    @property
    def noun(self) -> str:
        return self.look.noun

    @property
    def box(self) -> tuple[float, float, float, float]:
        """``(x0, y0, x1, y1)`` as shares of the picture."""
        half = self.size / 2
        return self.x - half, self.y - half, self.x + half, self.y + half


def place(canvas: Image.Image, look: Look, centre: tuple[float, float], size: float) -> SceneObject:
    """Draw one object onto the canvas in place; centre and size are shares of the picture's side."""
    side = canvas.width
    pen = drawn(look, size * side)
    corner = (round(centre[0] * side - pen.centre), round(centre[1] * side - pen.centre))
    canvas.paste(pen.layer, corner, pen.layer)
    mask = Image.new("L", canvas.size)
    mask.paste(pen.layer.getchannel("A"), corner)
    return SceneObject(look, *centre, size, np.asarray(mask.reduce(SUPERSAMPLING), np.float32) / 255)


def finish(canvas: Image.Image) -> np.ndarray:
    """Reduce the supersampled canvas to (SIDE, SIDE, 3) uint8."""
    return np.asarray(canvas.reduce(SUPERSAMPLING))


def placements(
    nouns: Sequence[str], rng: np.random.Generator, size_word: str = ""
) -> list[tuple[tuple[float, float], float]]:
    """Free centres and sizes with little overlap; ``size_word`` is one of `SIZE_WORDS` for a lone object, or ""."""
    low, high = SIZE_WORDS[size_word] if size_word else SIZES[len(nouns)]
    sizes = [rng.uniform(low, high) for _ in nouns]
    places: list[tuple[tuple[float, float], float]] = []
    for attempt in range(200):
        places = []
        for noun, size in zip(nouns, sizes, strict=True):
            half = size / 2
            x = rng.uniform(half * 0.92, 1 - half * 0.92)
            y = rng.uniform(half, 1 - half) if rng.random() < 0.6 else USUAL_HEIGHT[noun] + rng.normal(0, 0.07)
            places.append(((x, float(np.clip(y, half * 0.96, 1 - half * 0.96))), size))
        room = 0.94 if attempt < 100 else 0.8
        if all(
            max(abs(a[0] - b[0]), abs(a[1] - b[1])) > room * (one + other) / 2
            for i, (a, one) in enumerate(places)
            for b, other in places[:i]
        ):
            break
        sizes = [max(0.24, s * 0.995) for s in sizes]
    return places
