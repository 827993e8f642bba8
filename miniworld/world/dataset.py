"""Rendered training pictures, made once and kept on disk."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

from .scenes import SIDE, Scene, render_scene

log = logging.getLogger("compinv.miniworld")
CHUNK = 500


def scene_rng(split: int, index: int) -> np.random.Generator:
    """The generator of one chunk of one split: equal arguments give equal scenes on every machine."""
    return np.random.default_rng([2312, 8048, split, index])


def _chunk(split: int, index: int, extract) -> list:
    rng = scene_rng(split, index)
    return [extract(render_scene(rng)) for _ in range(CHUNK)]


def render_split(split: int, count: int, extract) -> list:
    """Render ``count`` scenes (a multiple of ``CHUNK``) and keep ``extract(scene)`` of each.

    ``extract`` is a module-level function; two processes render.
    """
    chunks = range(count // CHUNK)
    with ProcessPoolExecutor(2) as pool:
        parts = pool.map(_chunk, [split] * len(chunks), chunks, [extract] * len(chunks))
        return [row for part in parts for row in part]


def picture_and_caption(scene: Scene) -> tuple[np.ndarray, str]:
    return scene.image, scene.caption


def training_pictures(folder: Path, count: int) -> tuple[torch.Tensor, list[str]]:
    """Pictures (count, 3, SIDE, SIDE) uint8 and their captions, from ``folder`` where they are there already."""
    pixels, captions = folder / f"pictures-{count}.npy", folder / f"captions-{count}.txt"
    if not (pixels.exists() and captions.exists()):
        log.info("rendering %d scenes", count)
        rows = render_split(0, count, picture_and_caption)
        images = np.stack([image for image, _ in rows]).transpose(0, 3, 1, 2)
        assert images.shape[1:] == (3, SIDE, SIDE)
        with open(pixels.with_suffix(".part"), "wb") as file:
            np.save(file, np.ascontiguousarray(images))
        captions.write_text("\n".join(caption for _, caption in rows))
        os.replace(pixels.with_suffix(".part"), pixels)
    return torch.from_numpy(np.load(pixels)), captions.read_text().split("\n")


def disturbed(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Pictures (B, 3, H, W) in [0, 1] with other brightness, tint and noise, for networks that look at pictures."""
    count = len(pictures)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    noise = torch.randn(pictures.shape, generator=generator) * 0.05 * rand(count, 1, 1, 1)
    return (pictures * (0.9 + 0.2 * rand(count, 1, 1, 1)) + 0.05 * (rand(count, 3, 1, 1) - 0.5) + noise).clamp(0, 1)
