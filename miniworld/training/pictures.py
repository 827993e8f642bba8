"""Pictures rendered by many processes into files that training reads while they grow."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from multiprocessing.context import SpawnContext
from pathlib import Path

import numpy as np

from ..networks.judge import NOUN_NAMES
from ..world.backgrounds import BACKGROUNDS
from ..world.dataset import scene_rng, scene_with_one_twice, training_scenes
from ..world.looks import COLOURS, MARKS, PATTERNS
from ..world.placing import SIDE
from ..world.scenes import Scene
from ..world.words import STORED, rows_of
from .plan import Plan

MOST_OBJECTS, MASK_CELLS = 3, 32
SPLIT = 0
FEWEST = 64
"""Pictures that each renderer makes, however short the time."""
ONE_TWICE = 0.06
"""Share of groups that are scenes with one noun twice."""
FIELDS: dict[str, tuple[type, tuple[int, ...]]] = {
    "pictures": (np.uint8, (SIDE, SIDE, 3)),
    "captions": (np.uint16, (STORED,)),
    "objects": (np.float32, (MOST_OBJECTS, 9)),
    "masks": (np.uint8, (MOST_OBJECTS, MASK_CELLS, MASK_CELLS)),
    "backgrounds": (np.uint8, ()),
    "groups": (np.int32, ()),
    "for_judge": (np.bool_, ()),
}
"""Rows of one picture.

``objects`` holds noun, box ``x0, y0, x1, y1`` in [0, 1] and indices of colour, second colour, pattern and mark, -1
where there is none; ``groups`` counts portraits of the same thing, -1 for other scenes; ``for_judge`` marks what the
generator must not see.
"""


def truth(scene: Scene) -> dict[str, np.ndarray | int]:
    """A scene as `FIELDS`, but for its group."""
    objects = np.full((MOST_OBJECTS, 9), -1, np.float32)
    masks = np.zeros((MOST_OBJECTS, MASK_CELLS, MASK_CELLS), np.uint8)
    palette = list(COLOURS)
    for row, mask, thing in zip(objects, masks, scene.objects, strict=False):
        look = thing.look
        first, second, _ = (palette.index(word) if word else -1 for word in look.words)
        pattern = 1 + PATTERNS.index(look.pattern) if look.pattern else 0
        mark = 1 + MARKS.index(look.mark) if look.mark else 0
        row[:] = (NOUN_NAMES.index(thing.noun), *np.clip(thing.box, 0, 1), first, second, pattern, mark)
        mask[:] = 255 * thing.mask.reshape(MASK_CELLS, SIDE // MASK_CELLS, MASK_CELLS, -1).mean((1, 3))
    return {
        "pictures": scene.image,
        "captions": np.array(rows_of(scene.caption, STORED), np.uint16),
        "objects": objects,
        "masks": masks,
        "backgrounds": BACKGROUNDS.index(scene.background),
    }


class Store:
    """The renderers' files, one row a picture.

    Picture i of renderer r is ``field[r, i]``; those below ``done[r]`` are there.
    """

    def __init__(self, plan: Plan, create: bool = False) -> None:
        mode = "w+" if create else "r+"
        plan.scratch.mkdir(parents=True, exist_ok=True)
        self._fields = {
            name: np.memmap(plan.scratch / name, kind, mode, shape=(plan.renderers, plan.capacity, *shape))
            for name, (kind, shape) in FIELDS.items()
        }
        self.done = np.memmap(plan.scratch / "done", np.int64, mode, shape=(plan.renderers,))

    def __getitem__(self, name: str) -> np.ndarray:
        return self._fields[name]

    def count(self) -> int:
        return int(self.done.sum())

    def available(self) -> np.ndarray:
        """Renderer and number of every picture that is there, (n, 2)."""
        parts = [np.stack([np.full(n, r), np.arange(n)], 1) for r, n in enumerate(self.done.tolist())]
        return np.concatenate(parts)

    def take(self, name: str, which: np.ndarray) -> np.ndarray:
        return self._fields[name][which[:, 0], which[:, 1]]


def start_renderers(plan: Plan, context: SpawnContext) -> list:
    """Start the renderers; they end when their time is over or their files are full."""
    processes = [context.Process(target=render, args=(plan, r), daemon=True) for r in range(plan.renderers)]
    for process in processes:
        process.start()
    return processes


def render(plan: Plan, renderer: int) -> None:
    """Render until the time is over or the file is full."""
    os.nice(5)
    store, rng, number = Store(plan), scene_rng(SPLIT, renderer), 0
    scenes = training_scenes(rng)

    def put(scene: Scene, group: int, for_judge: bool) -> None:
        nonlocal number
        if number < plan.capacity:
            for name, value in (truth(scene) | {"groups": group, "for_judge": for_judge}).items():
                store[name][renderer, number] = value
            number += 1
            store.done[renderer] = number

    group = renderer * 10_000_000
    while number < plan.capacity and (number < FEWEST or plan.elapsed() < plan.RENDERING * plan.seconds):
        if rng.random() < ONE_TWICE:
            put(scene_with_one_twice(rng), -1, True)
            continue
        members, portraits = next(scenes)
        group += portraits
        for scene in members:
            put(scene, group if portraits else -1, False)


def wait_until(there: Callable[[], bool], seconds: float, what: str, alive: Callable[[], bool] = lambda: True) -> None:
    """Wait for what another process makes.

    Raises
    ------
    RuntimeError
        If it does not come in time, or the process has died.
    """
    end = time.time() + seconds
    while not there():
        if time.time() > end or not alive():
            raise RuntimeError(f"There is no {what}: the process that makes it is late or has died.")
        time.sleep(0.1)


def scratch_folder(need: float) -> Path:
    """Where pictures of ``need`` bytes are kept: in memory if there is room, else on the disk."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 1.2 * need
    return Path(tempfile.mkdtemp(prefix="compinv-world-", dir=memory if roomy else None))
