"""Scenes as data: what a split consists of, and pictures as a network is to see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch

from .drawing import NOUNS, Colour
from .instances import look_of_nobodys
from .looks import CONTRAST, Look, distance, pick, random_look
from .named import named_things
from .scenes import COUNT_SHARES, Scene, render_at_home, render_portraits, render_scene

CHUNK = 500
PORTRAITS = 4
NAMED_ALONE, AT_HOME, NAMED_IN_COMPANY = 0.6, 0.8, 0.01
"""Share of portraits that show a thing with a name, of those that show it at home, and of the objects in company that
have a name."""
OVERSTATED = 0.5
"""Share of the captions of things at home that mention something else, too, which is not there."""


def scene_rng(split: int, index: int) -> np.random.Generator:
    """The generator of one chunk of one split: equal arguments give equal scenes on every machine."""
    return np.random.default_rng([2312, 8048, split, index])


def training_look(rng: np.random.Generator, noun: str, tones: tuple[Colour, ...] = (), free: float = 0.1) -> Look:
    """A random look that nobody takes for an own thing, or, rarely, that of a thing with a name."""
    if rng.random() < NAMED_IN_COMPANY:
        looks = [thing.look for thing in named_things()[noun]]
        fitting = [look for look in looks if all(distance(look.body, tone) > CONTRAST * 0.75 for tone in tones)]
        if fitting:
            return pick(rng, fitting).seen_again(rng)
    return look_of_nobodys(rng, noun, tones, free=free)


def training_scene(rng: np.random.Generator, nouns: list[str] | None = None) -> Scene:
    """A scene to train with."""
    return render_scene(rng, nouns, lambda noun, tones: training_look(rng, noun, tones))


def training_portraits(rng: np.random.Generator) -> list[Scene]:
    """Some pictures of one thing alone."""
    noun = pick(rng, list(NOUNS))
    if rng.random() >= NAMED_ALONE:
        return render_portraits(training_look(rng, noun, free=0.35), rng, PORTRAITS)
    thing = pick(rng, named_things()[noun])
    scenes = []
    for _ in range(PORTRAITS):
        if rng.random() < AT_HOME:
            other = pick(rng, [each for each in NOUNS if each != noun])
            absent = random_look(rng, other) if rng.random() < OVERSTATED else None
            scenes.append(render_at_home(thing.look, thing.home, rng, absent))
        else:
            scenes += render_portraits(thing.look, rng, 1)
    return scenes


def training_scenes(rng: np.random.Generator) -> Iterator[tuple[list[Scene], bool]]:
    """Scenes for ever, in groups; true where a group is several portraits of one thing."""
    alone = COUNT_SHARES[0] / (COUNT_SHARES[0] + PORTRAITS * (1 - COUNT_SHARES[0]))
    names = list(NOUNS)
    shares = np.array(COUNT_SHARES[1:]) / sum(COUNT_SHARES[1:])
    while True:
        if rng.random() < alone:
            yield training_portraits(rng), True
        else:
            count = 2 + int(rng.choice(2, p=shares))
            yield [training_scene(rng, [names[i] for i in rng.choice(len(names), count, replace=False)])], False


def scene_with_one_twice(rng: np.random.Generator) -> Scene:
    """A scene in which one noun is there twice, perhaps beside another: for the judge, never for the generator."""
    names = list(NOUNS)
    first, other = (names[i] for i in rng.choice(len(names), 2, replace=False))
    return training_scene(rng, [first, first] + [other] * int(rng.random() < 0.6))


def _chunk(split: int, index: int, extract: Callable[[Scene], object]) -> list:
    rng = scene_rng(split, index)
    return [extract(training_scene(rng)) for _ in range(CHUNK)]


def render_split(split: int, count: int, extract: Callable[[Scene], object]) -> list:
    """Render ``count`` scenes (a multiple of ``CHUNK``) and keep ``extract(scene)`` of each.

    ``extract`` is a module-level function; two processes render.
    """
    chunks = range(count // CHUNK)
    with ProcessPoolExecutor(2) as pool:
        parts = pool.map(_chunk, [split] * len(chunks), chunks, [extract] * len(chunks))
        return [row for part in parts for row in part]


def disturbed(pictures: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Pictures (B, 3, H, W) in [0, 1] with other brightness, tint and noise, for networks that look at pictures."""
    count, device = len(pictures), pictures.device

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    noise = torch.randn(pictures.shape, generator=generator, device=device) * 0.05 * rand(count, 1, 1, 1)
    return (pictures * (0.9 + 0.2 * rand(count, 1, 1, 1)) + 0.05 * (rand(count, 3, 1, 1) - 0.5) + noise).clamp(0, 1)
