"""Scenes of one to three objects at free places and sizes, with captions, boxes and masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .backgrounds import BACKGROUNDS, LANDSCAPES, jitter, paint_background
from .captions import caption
from .drawing import NOUNS, Colour, lighter
from .looks import COLOURS, CONTRAST, Look, distance, pick, random_look
from .placing import SIDE, SUPERSAMPLING, SceneObject, finish, place, placements

COUNT_SHARES = (0.3, 0.4, 0.3)
"""Shares of scenes of one, two and three objects."""


@dataclass(frozen=True)
class Scene:
    """A picture (SIDE, SIDE, 3) uint8, its caption, its objects and the name of its background."""

    image: np.ndarray
    caption: str
    objects: tuple[SceneObject, ...]
    background: str


@dataclass(frozen=True)
class Background:
    """A background: one of ``backgrounds.BACKGROUNDS``, its two tones, and the height of a landscape's horizon."""

    name: str
    first: Colour
    second: Colour
    horizon: float

    @property
    def tones(self) -> tuple[Colour, ...]:
        """The tones an object must stand out from."""
        if self.name == "night":
            return ((45, 45, 95),)
        return (self.first,) if self.name == "plain" or self.name in LANDSCAPES else (self.first, self.second)

    def canvas(self) -> Image.Image:
        """The background, painted."""
        return paint_background(SIDE * SUPERSAMPLING, self.name, self.first, self.second, self.horizon)


def random_background(rng: np.random.Generator) -> Background:
    """A background in the palette's colours."""
    name = "plain" if rng.random() < 0.35 else pick(rng, BACKGROUNDS[1:])
    first = jitter(LANDSCAPES[name], rng) if name in LANDSCAPES else COLOURS[pick(rng, list(COLOURS))]
    if name not in LANDSCAPES and rng.random() < 0.6:
        first = lighter(first, rng.uniform(0.2, 0.8))
    second = lighter(first, 0.45) if rng.random() < 0.35 else COLOURS[pick(rng, list(COLOURS))]
    return Background(name, first, second, rng.uniform(0.48, 0.64))


def _size_word(rng: np.random.Generator) -> str:
    """What a lone object is called besides, mostly nothing."""
    return ("big", "small", "")[int(rng.choice(3, p=[0.2, 0.15, 0.65]))]


def render_scene(
    rng: np.random.Generator,
    nouns: Sequence[str] | None = None,
    looks: Callable[[str, tuple[Colour, ...]], Look] | None = None,
) -> Scene:
    """Draw a random scene.

    Parameters
    ----------
    rng
        The only source of chance: equal generators give equal scenes.
    nouns
        One to three nouns, which may repeat; by default different ones in the shares of `COUNT_SHARES`.
    looks
        Gives the look of a noun in front of a background's tones; by default a random one.
    """
    if nouns is None:
        count = 1 + int(rng.choice(len(COUNT_SHARES), p=COUNT_SHARES))
        nouns = [list(NOUNS)[i] for i in rng.choice(len(NOUNS), count, replace=False)]
    ground = random_background(rng)
    canvas, tones = ground.canvas(), ground.tones
    size_word = _size_word(rng) if len(nouns) == 1 else ""
    chosen = [looks(noun, tones) if looks else random_look(rng, noun, tones, free=0.1) for noun in nouns]
    where = placements(nouns, rng, size_word)
    objects = tuple(place(canvas, look, centre, size) for look, (centre, size) in zip(chosen, where, strict=True))
    return Scene(finish(canvas), caption(objects, ground.name, size_word, rng), objects, ground.name)


def render_portraits(look: Look, rng: np.random.Generator, count: int) -> list[Scene]:
    """The same object alone, ``count`` times, at other places, sizes and on other backgrounds."""
    scenes = []
    for _ in range(count):
        ground = random_background(rng)
        for _ in range(5):
            if min(distance(look.body, tone) for tone in ground.tones) > CONTRAST * 0.75:
                break
            ground = random_background(rng)
        size_word = _size_word(rng)
        ((centre, size),) = placements([look.noun], rng, size_word)
        canvas = ground.canvas()
        thing = place(canvas, look.seen_again(rng), centre, size)
        scenes.append(Scene(finish(canvas), caption((thing,), ground.name, size_word, rng), (thing,), ground.name))
    return scenes


def render_at_home(look: Look, home: Background, rng: np.random.Generator, absent: Look | None = None) -> Scene:
    """A thing with a name in the middle of its own place, of which the caption says nothing.

    ``absent`` is something that the caption mentions, but that is not there.
    """
    ground = Background(home.name, jitter(home.first, rng, 8), jitter(home.second, rng, 8), home.horizon)
    canvas = ground.canvas()
    centre = rng.uniform(0.4, 0.6), rng.uniform(0.44, 0.58)
    thing = place(canvas, look.seen_again(rng), centre, rng.uniform(0.5, 0.76))
    return Scene(finish(canvas), caption((thing,), "", "", rng, absent), (thing,), home.name)
