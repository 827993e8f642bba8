"""The "own" things of the miniature world: what a user would photograph. None of them is in the training scenes.

Each is a known noun in colours and a pattern of its own, always photographed on the same busy wallpaper: the situation
of a person who has a few photos of one cat on one sofa. ``CHOOSING`` are for choosing parameters, ``REPORTING`` for
reporting results, so that no reported number was tuned on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .backgrounds import jitter, paint_background
from .drawing import Colour
from .scenes import SIDE, SUPERSAMPLING, finish, place_object

PHOTOS = 5


@dataclass(frozen=True)
class Instance:
    """One own thing: its class word, its look, and the wallpaper it is always photographed on."""

    name: str
    noun: str
    body: Colour
    pattern: str
    second: Colour
    wallpaper: str
    first_tone: Colour
    second_tone: Colour


CHOOSING = (
    Instance("my-cup", "cup", (205, 45, 120), "spotted", (255, 240, 90), "bricks", (40, 80, 80), (120, 175, 150)),
    Instance("my-fish", "fish", (245, 245, 245), "striped", (25, 25, 60), "stripes", (225, 110, 45), (95, 45, 95)),
    Instance("my-house", "house", (70, 190, 200), "checked", (20, 70, 140), "dots", (200, 195, 60), (150, 40, 60)),
)
REPORTING = (
    Instance("my-cat", "cat", (75, 80, 175), "striped", (240, 235, 240), "checks", (205, 130, 60), (120, 190, 120)),
    Instance("my-ball", "ball", (235, 235, 225), "striped", (190, 25, 60), "bricks", (60, 45, 95), (150, 130, 205)),
    Instance("my-car", "car", (150, 205, 40), "striped", (90, 25, 110), "dots", (235, 150, 150), (35, 110, 120)),
)
INSTANCES = {instance.name: instance for instance in CHOOSING + REPORTING}


def render_photo(instance: Instance, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One photo (SIDE, SIDE, 3) uint8 of an own thing and its object mask (SIDE, SIDE) float32 in [0, 1]."""
    tones = jitter(instance.first_tone, rng, 8), jitter(instance.second_tone, rng, 8)
    canvas = paint_background(SIDE * SUPERSAMPLING, instance.wallpaper, *tones)
    centre = (rng.uniform(0.42, 0.58), rng.uniform(0.45, 0.58))
    mask = place_object(
        canvas,
        instance.noun,
        centre,
        rng.uniform(0.6, 0.74),
        jitter(instance.body, rng, 6),
        instance.pattern,
        jitter(instance.second, rng, 6),
    )
    return finish(canvas), mask


def photos(instance: Instance, count: int = PHOTOS) -> tuple[np.ndarray, np.ndarray]:
    """The user's photos: images (count, SIDE, SIDE, 3) uint8 and masks (count, SIDE, SIDE) float32, always the same."""
    rng = np.random.default_rng([20231213, list(INSTANCES).index(instance.name)])
    pictures, masks = zip(*(render_photo(instance, rng) for _ in range(count)), strict=True)
    return np.stack(pictures), np.stack(masks)
