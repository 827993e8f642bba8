"""From the photos of a concept to latents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ...basics.errors import UserError
from ...learning.photos import centre_crop, latent_weights
from ...training.events import Sink, reported
from ..family import Family

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import VAE


def check_autoencoder(family: Family, vae: VAE) -> None:
    """Refuse an autoencoder whose latents the family's diffusion models do not take.

    Raises
    ------
    UserError
    """
    fits = (vae.latent_channels, vae.downscale_ratio) == (family.latent_channels, family.pixels_per_cell)
    if not fits or vae.first_stage_model is None:
        raise UserError(
            f"The autoencoder makes latents of {vae.latent_channels} channels, the model takes "
            f"{family.latent_channels}; connect `vae` to the same {family.name} checkpoint as `model`."
        )


def encode_photos(
    model: ModelPatcher,
    vae: VAE,
    photos: torch.Tensor,
    masks: torch.Tensor | None,
    cell: int,
    sink: Sink,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Encode photos to the mean of the autoencoder's posterior, and bring masks to latent resolution.

    One photo at a time, so that the result does not depend on free memory and the person can stop.

    Parameters
    ----------
    photos : Tensor (n, H, W, 3)
        Cropped at the centre to a multiple of `cell` pixels, the side of a latent cell.
    masks : Tensor (n, H, W), optional

    Returns
    -------
    latents : Tensor (n, C, h, w), float32, CPU
        As the diffusion model takes them.
    weights : Tensor (n, 1, h, w), float32, CPU, or None

    Raises
    ------
    UserError
        When the autoencoder gives NaN, or a mask lies only in the part that is cropped away.
    """
    latents = []
    with torch.inference_mode():
        for photo in reported("encoding photos", tuple(centre_crop(photos, cell)), sink):
            latents.append(model.model.process_latent_in(vae.encode(photo[None])))
    with torch.inference_mode(False):
        encoded = torch.cat([latent.detach().float().cpu().clone() for latent in latents])
        weights = None if masks is None else latent_weights(centre_crop(masks.clone(), cell), cell)
    if not torch.isfinite(encoded).all():
        raise UserError("The autoencoder turned the images into NaN; use its full-precision version (--fp32-vae).")
    if weights is not None and not weights.sum((1, 2, 3)).all():
        raise UserError(
            f"A mask is empty after cropping the image to a multiple of {cell}; paint the concept further inside."
        )
    return encoded, weights
