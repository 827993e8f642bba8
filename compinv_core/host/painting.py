"""Pictures painted with the host's own sampler inside a node: class pictures, layout data, previews, experiments.

Pictures have one memory layout: an ordinary (not inference) tensor (B, H, W, 3), float32, CPU, in [0, 1], of 8 bits a
channel. A picture that was written to a file and read again is the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.sample
import numpy as np
import torch
from PIL import Image

from ..basics.atomic_file import replacing
from .family import Family
from .progress import stop_if_asked

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE


@dataclass(frozen=True)
class Sampling:
    """How the host's sampler is set."""

    steps: int
    cfg: float
    sampler_name: str = "euler"
    scheduler: str = "normal"


class Painter:
    """Paints pictures of one size; the stop button is heard at every step.

    Parameters
    ----------
    model, clip, vae
        Of one family. `clip` encodes the empty negative prompt at once.
    height, width : int
        Pixels, multiples of a latent cell.
    """

    def __init__(self, model: ModelPatcher, clip: CLIP, vae: VAE, sampling: Sampling, height: int, width: int) -> None:
        family = Family.of("Painting", model)
        self._model, self._clip, self._vae, self._sampling = model, clip, vae, sampling
        self._latent = torch.zeros(1, family.latent_channels, *family.latent_size(height, width))
        self._negative = self.encode("")

    def encode(self, prompt: str) -> list:
        """Return the CONDITIONING of a prompt, as the host's text encode node makes it."""
        with torch.inference_mode():
            return self._clip.encode_from_tokens_scheduled(self._clip.tokenize(prompt))

    def paint(self, positive: list, seeds: Sequence[int]) -> torch.Tensor:
        """Return a picture for each seed, (B, H, W, 3), whose noise does not depend on the others."""
        with torch.inference_mode():
            noises: list[Any] = [comfy.sample.prepare_noise(self._latent, seed) for seed in seeds]
        return self._sampled(positive, torch.cat(noises), seeds[0])

    def paint_batch(self, positive: list, seed: int, count: int = 1, negative: list | None = None) -> torch.Tensor:
        """Return so many pictures of one seed, (B, H, W, 3), as the host's sampler node draws their noise."""
        with torch.inference_mode():
            noise: Any = comfy.sample.prepare_noise(self._latent.repeat(count, 1, 1, 1), seed)
        return self._sampled(positive, noise, seed, negative)

    def has_room(self) -> bool:
        """Tell whether the host would load the autoencoder without pushing out the networks that are loaded."""
        management, vae = comfy.model_management, self._vae
        if management.DISABLE_SMART_MEMORY:
            return False
        decoding = vae.memory_used_decode(self._latent.shape, vae.vae_dtype) + management.extra_reserved_memory()
        loading = 1.1 * (vae.patcher.model_size() - vae.patcher.loaded_size())
        needed = loading + max(decoding, management.minimum_inference_memory())
        return needed <= management.get_free_memory(vae.patcher.load_device)

    def _sampled(self, positive: list, noise: torch.Tensor, seed: int, negative: list | None = None) -> torch.Tensor:
        stop_if_asked()
        how = self._sampling
        with torch.inference_mode():
            samples = comfy.sample.sample(
                self._model,
                noise,
                how.steps,
                how.cfg,
                how.sampler_name,
                how.scheduler,
                positive,
                self._negative if negative is None else negative,
                self._latent.repeat(len(noise), 1, 1, 1),
                callback=stop_if_asked,
                disable_pbar=True,
                seed=seed,
            )
            pixels = (self._vae.decode(samples).clamp(0, 1) * 255).round()
        with torch.inference_mode(False):
            return pixels.float().cpu().clone(memory_format=torch.contiguous_format) / 255


def as_image(picture: torch.Tensor) -> Image.Image:
    """Return a picture (H, W, 3) as a PIL image."""
    return Image.fromarray((picture * 255).round().byte().numpy())


def write_picture(path: Path, picture: torch.Tensor) -> None:
    """Write a picture (H, W, 3) as a PNG file, through a temporary one that is renamed."""
    with replacing(path) as temporary:
        as_image(picture).save(temporary, "PNG")


def read_picture(path: Path, height: int, width: int) -> torch.Tensor | None:
    """Return the picture (height, width, 3) in a file; None where it is damaged, no picture, or of another size."""
    try:
        with Image.open(path) as image:
            if image.size != (width, height):
                return None
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    with torch.inference_mode(False):
        return torch.from_numpy(pixels.copy()).float() / 255
