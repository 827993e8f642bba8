"""From the photos of a concept to latents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from comfy.ldm.models.autoencoder import DiagonalGaussianRegularizer
from comfy.ldm.modules.distributions.distributions import DiagonalGaussianDistribution

from ...basics.errors import UserError, remark
from ...learning.concept import Concept
from ...learning.pictures.encoded import Encoded
from ...learning.pictures.judging import photo_faults
from ...learning.pictures.photos import centre_crop, latent_weights
from ...learning.pictures.sizes import Frame
from ...learning.settings import InversionConfig
from ...training.events import Sink, reported
from ..family import Family

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import VAE


# The fewest cells along a side of the UNet's smallest feature map: half of what most models were trained with.
_FEWEST_CELLS = 4


def remark_on_photos(family: Family, model: ModelPatcher, concepts: Sequence[Concept]) -> None:
    """Remark on checked photos that will spoil the learning."""
    halvings = len(model.model.model_config.unet_config["channel_mult"]) - 1
    least = max(_FEWEST_CELLS * family.pixels_per_cell * 2**halvings, math.isqrt(family.most_pixels) // 2)
    for concept in concepts:
        for fault in photo_faults(concept.photos, concept.masks is not None, least):
            remark(f"{concept.name} {fault}")


def check_autoencoder(family: Family, vae: VAE) -> None:
    """Refuse an autoencoder whose latents the family's diffusion models do not take.

    Raises
    ------
    UserError
    """
    if vae is None:
        raise UserError("The checkpoint at `vae` has no autoencoder; connect `vae` to one that has, or to Load VAE.")
    fits = (vae.latent_channels, vae.downscale_ratio) == (family.latent_channels, family.pixels_per_cell)
    if not fits or vae.first_stage_model is None:
        raise UserError(
            f"The autoencoder makes latents of {vae.latent_channels} channels, the model takes "
            f"{family.latent_channels}; connect `vae` to the same {family.name} checkpoint as `model`."
        )


def encoded_pictures(
    family: Family,
    model: ModelPatcher,
    vae: VAE,
    pictures: torch.Tensor,
    masks: torch.Tensor | None,
    sink: Sink,
    frame: Frame | None,
    mirrored: bool,
    sampled: bool,
) -> tuple[Encoded, torch.Tensor | None]:
    """Encode pictures of one size, as `encode_photos`, with what the training has to know of them beside.

    Parameters
    ----------
    frame : Frame, optional
        What they were cut from; None is their own size.
    mirrored : bool
        Whether mirror images stand behind them; masks then have no effect.
    sampled : bool
        Whether the spread of the posterior is wanted, too; see `samples_posterior`.
    """
    if mirrored:
        pictures = torch.cat([pictures, pictures.flip(2)])
    cell, spread, told = family.pixels_per_cell, None, None
    latents, weights = encode_photos(model, vae, pictures, masks, cell, sink)
    if sampled:
        spread = encode_spread(model, vae, pictures, cell, sink)
    if family.size_conditioning:
        told = torch.tensor([frame or (*pictures.shape[1:3], 0, 0)], dtype=torch.float32).repeat(len(latents), 1)
    return Encoded(latents, spread=spread, mirrored=mirrored, frames=told), weights


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
    encoded = _encoded(vae, photos, cell, sink, model.model.process_latent_in)
    with torch.inference_mode(False):
        weights = None if masks is None else latent_weights(centre_crop(masks.clone(), cell), cell)
    if weights is not None and not weights.sum((1, 2, 3)).all():
        raise UserError(
            f"A mask is empty after cropping the image to a multiple of {cell}; paint the concept further inside."
        )
    return encoded, weights


def samples_posterior(config: InversionConfig, vae: VAE) -> bool:
    """Whether photos are sampled from the autoencoder's posterior: where that is asked for, and it has a spread."""
    has_spread = isinstance(_regularization(vae), DiagonalGaussianRegularizer)
    if config.is_official and not has_spread:
        remark(
            "The preset official_2024 samples the autoencoder's posterior at every step; this autoencoder "
            f"({type(vae.first_stage_model).__name__}) gives its mean alone, on which the training is done."
        )
    return config.is_official and has_spread


def encode_spread(model: ModelPatcher, vae: VAE, photos: torch.Tensor, cell: int, sink: Sink) -> torch.Tensor:
    """Return the standard deviations (n, C, h, w) of the posterior whose means `encode_photos` gives.

    Parameters
    ----------
    vae : VAE
        One that `samples_posterior` has found a spread in.
    photos : Tensor (n, H, W, 3)

    Raises
    ------
    UserError
        When the autoencoder gives NaN.
    """

    def deviation(module: torch.nn.Module, inputs: tuple, output: tuple) -> tuple:
        return DiagonalGaussianDistribution(inputs[0].float()).std, output[1]

    def scaled(deviations: torch.Tensor) -> torch.Tensor:
        # Of how the diffusion model takes latents a spread has the scale, but no shift.
        process = model.model.process_latent_in
        return process(deviations) - process(torch.zeros_like(deviations))

    # The host's own encoding, cropping and tiling included, with the spread in the place of the mean.
    hook = _regularization(vae).register_forward_hook(deviation)
    try:
        return _encoded(vae, photos, cell, sink, scaled)
    finally:
        hook.remove()


def _encoded(
    vae: VAE, photos: torch.Tensor, cell: int, sink: Sink, scaled: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    latents = []
    with torch.inference_mode():
        for photo in reported("encoding photos", tuple(centre_crop(photos, cell)), sink):
            latents.append(scaled(vae.encode(photo[None])))
    with torch.inference_mode(False):
        encoded = torch.cat([latent.detach().float().cpu().clone() for latent in latents])
    if not torch.isfinite(encoded).all():
        raise UserError("The autoencoder turned the images into NaN; use its full-precision version (--fp32-vae).")
    return encoded


def _regularization(vae: VAE) -> Any:
    return getattr(vae.first_stage_model, "regularization", None)
