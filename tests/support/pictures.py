"""Inputs that the server's tests load: photos good and bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file


def photo(path: Path, seed: int, width: int = 128, height: int = 128, noise: int = 32) -> None:
    """Write a picture of a disc on a noisy ground, of so many levels, drawn from the seed."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(128 - noise // 2, 128 + noise // 2, (height, width, 3), dtype=np.uint8)
    y, x = np.ogrid[:height, :width]
    disc = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (min(width, height) / 3) ** 2
    pixels[disc] = rng.integers(0, 256, 3, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def fill_input_folder(folder: Path) -> None:
    """Write what the tests choose in their loading nodes.

    `example.png` is the templates' photo, as in every new ComfyUI; `my-cat-1.png` … `my-cat-3.png`, and the same of
    `my-ball`, are photos of one thing each; `two-sizes/` holds photos that do not fit together;
    `nan.latent` decodes to a picture of NaN.
    """
    photo(folder / "example.png", 1)
    for number in (1, 2, 3):
        photo(folder / f"my-cat-{number}.png", number)
        photo(folder / f"my-ball-{number}.png", 10 + number)
    photo(folder / "two-sizes" / "a.png", 4)
    photo(folder / "two-sizes" / "b.png", 5, width=192)
    nan = {"latent_tensor": torch.full((1, 4, 16, 16), torch.nan), "latent_format_version_0": torch.tensor([])}
    save_file(nan, str(folder / "nan.latent"))
