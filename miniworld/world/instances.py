"""The "own" things of the miniature world: what a user would photograph. None of them is in the training scenes.

Each is a known noun in two colours of its own, a pattern and a mark, always photographed on the same busy wallpaper:
the situation of a person who has a few photos of one cat on one sofa. ``CHOOSING`` are for choosing parameters,
``REPORTING`` for reporting results, so that no reported number was tuned on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .backgrounds import jitter, paint_background
from .drawing import Colour
from .looks import Look, distance, random_look
from .placing import SIDE, SUPERSAMPLING, finish, place

PHOTOS = 5


@dataclass(frozen=True)
class Instance:
    """One own thing: its look, and the wallpaper and its tones that it is always photographed on."""

    name: str
    look: Look
    wallpaper: str
    first_tone: Colour
    second_tone: Colour

    @property
    def noun(self) -> str:
        return self.look.noun


def _own(noun, body, pattern, second, mark, third, wallpaper, first, other) -> Instance:
    return Instance(f"my-{noun}", Look(noun, body, pattern, second, mark, third), wallpaper, first, other)


# fmt: off
CHOOSING = (
    _own("cup", (205, 45, 120), "spotted", (255, 240, 90), "collar", (30, 30, 60),
         "bricks", (40, 80, 80), (120, 175, 150)),
    _own("fish", (245, 245, 245), "striped", (25, 25, 60), "hat", (230, 60, 40),
         "stripes", (225, 130, 65), (95, 45, 95)),
    _own("house", (70, 190, 200), "checked", (20, 70, 140), "patch", (250, 220, 60),
         "dots", (200, 195, 120), (150, 40, 60)),
    _own("bird", (40, 150, 130), "spotted", (245, 190, 170), "collar", (210, 40, 45),
         "stripes", (235, 225, 160), (120, 90, 150)),
    _own("cube", (245, 170, 190), "striped", (130, 30, 50), "hat", (40, 40, 45),
         "dots", (60, 130, 180), (190, 225, 235)),
    _own("heart", (30, 60, 120), "spotted", (240, 150, 40), "patch", (225, 60, 130),
         "stripes", (200, 225, 205), (120, 160, 90)),
)
REPORTING = (
    _own("cat", (75, 80, 175), "striped", (240, 235, 240), "hat", (245, 200, 40),
         "checks", (205, 130, 60), (120, 190, 120)),
    _own("ball", (235, 235, 225), "checked", (190, 25, 60), "patch", (20, 110, 90),
         "bricks", (60, 45, 95), (150, 130, 205)),
    _own("car", (150, 205, 40), "spotted", (90, 25, 110), "hat", (245, 245, 240),
         "dots", (235, 150, 150), (35, 110, 120)),
    _own("mushroom", (95, 45, 140), "striped", (120, 215, 190), "patch", (250, 235, 230),
         "checks", (190, 200, 90), (235, 150, 90)),
    _own("boat", (225, 110, 30), "checked", (250, 245, 210), "collar", (20, 60, 130),
         "bricks", (90, 110, 60), (165, 190, 120)),
    _own("star", (190, 60, 35), "checked", (60, 40, 40), "collar", (120, 220, 230),
         "checks", (230, 215, 180), (100, 120, 170)),
)
# fmt: on
INSTANCES = {instance.name: instance for instance in CHOOSING + REPORTING}


def too_like_own(look: Look, near: float = 70.0) -> bool:
    """Whether a look could be taken for an own thing: same noun, pattern and mark, and both main colours near."""
    own = INSTANCES.get(f"my-{look.noun}")
    if own is None or (look.pattern, look.mark) != (own.look.pattern, own.look.mark):
        return False
    return distance(look.body, own.look.body) < near and distance(look.second, own.look.second) < near


def look_of_nobodys(rng: np.random.Generator, noun: str, tones: tuple[Colour, ...] = (), **shares: float) -> Look:
    """A random look (`looks.random_look`) that nobody takes for an own thing."""
    look = random_look(rng, noun, tones, **shares)
    while too_like_own(look):
        look = random_look(rng, noun, tones, **shares)
    return look


def render_photo(instance: Instance, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One photo (SIDE, SIDE, 3) uint8 of an own thing and its object mask (SIDE, SIDE) float32 in [0, 1]."""
    tones = jitter(instance.first_tone, rng, 8), jitter(instance.second_tone, rng, 8)
    canvas = paint_background(SIDE * SUPERSAMPLING, instance.wallpaper, *tones)
    size = rng.uniform(0.55, 0.74)
    thing = place(canvas, instance.look.seen_again(rng), (rng.uniform(0.4, 0.6), rng.uniform(0.44, 0.58)), size)
    return finish(canvas), thing.mask


def photos(instance: Instance, count: int = PHOTOS, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The user's photos: images (count, SIDE, SIDE, 3) uint8 and masks (count, SIDE, SIDE) float32, always the same.

    ``first`` leaves out so many before them: from ``PHOTOS`` on they are pictures that no word was learned from.
    """
    rng = np.random.default_rng([20231213, list(INSTANCES).index(instance.name)])
    pictures, masks = zip(*(render_photo(instance, rng) for _ in range(first + count)), strict=True)
    return np.stack(pictures[first:]), np.stack(masks[first:])
