"""From the photos of a concept to latents, and the fingerprint of everything that a training depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import comfy.model_management
import torch

from .. import logger
from ..basics.digests import digest
from ..errors import UserError
from ..inversion_config import InversionConfig
from ..photos import centre_crop, latent_weights, stack_masks
from .family import predicts_velocity, text_parts
from .progress import with_progress

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE


_PIXELS_PER_CELL = 8


def check_autoencoder(model: ModelPatcher, vae: VAE) -> None:
    """Refuse an autoencoder whose latents the diffusion model does not take.

    Parameters
    ----------
    model : ModelPatcher
    vae : VAE

    Raises
    ------
    UserError
    """
    wanted = model.model.latent_format.latent_channels
    if vae.latent_channels != wanted or vae.downscale_ratio != _PIXELS_PER_CELL or vae.first_stage_model is None:
        raise UserError(
            f"The autoencoder makes latents of {vae.latent_channels} channels, the model takes {wanted}; "
            "connect `vae` to the same Stable Diffusion 1 checkpoint as `model`."
        )


def checked_masks(
    mask: torch.Tensor | Sequence[torch.Tensor] | None, photos: torch.Tensor, config: InversionConfig
) -> torch.Tensor | None:
    """Join the concept masks and check that they fit the photos.

    Parameters
    ----------
    mask : Tensor (n, H, W) or a sequence of such batches, optional
    photos : Tensor (n, H, W, 3)
    config : InversionConfig

    Returns
    -------
    Tensor (n, H, W), or None
        None where there is no mask, or the preset gives it no effect.

    Raises
    ------
    UserError
    """
    if mask is None:
        return None
    masks = stack_masks([mask] if isinstance(mask, torch.Tensor) else mask, photos)
    if config.preset == "official_2024":
        logger.info("The preset official_2024 repeats that the mask has no effect in the released code.")
        return None
    return masks


def encode_photos(
    model: ModelPatcher, vae: VAE, photos: torch.Tensor, masks: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Encode photos to the mean of the autoencoder's posterior, and bring masks to latent resolution.

    One photo at a time, so that the result does not depend on free memory and the person can stop.

    Parameters
    ----------
    model : ModelPatcher
        For the scale of its latents.
    vae : VAE
    photos : Tensor (n, H, W, 3)
        Cropped at the centre to a multiple of 8 pixels.
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
    cell = _PIXELS_PER_CELL
    latents = []
    with torch.inference_mode():
        for photo in with_progress(tuple(centre_crop(photos, cell))):
            latents.append(model.model.process_latent_in(vae.encode(photo[None])))
    with torch.inference_mode(False):
        encoded = torch.cat([latent.detach().float().cpu().clone() for latent in latents])
        weights = None if masks is None else latent_weights(centre_crop(masks.clone(), cell), cell)
    if not torch.isfinite(encoded).all():
        raise UserError("The autoencoder turned the images into NaN; use its full-precision version (--fp32-vae).")
    if weights is not None and not weights.sum((1, 2, 3)).all():
        raise UserError(
            "A mask is empty after cropping the image to a multiple of 8; paint the concept further inside."
        )
    return encoded, weights


def model_fingerprint(model: ModelPatcher, clip: CLIP, vae: VAE) -> dict[str, str]:
    """Describe the models that a result depends on.

    Parameters
    ----------
    model, clip, vae

    Returns
    -------
    dict of str to str
    """
    comfy.model_management.load_models_gpu([model, clip.patcher], force_full_load=True)
    sampling: Any = model.get_model_object("model_sampling")
    return {
        "model": f"{_weights_digest(model.model.diffusion_model)} {_patches_digest(model)}",
        "noise schedule": f"{digest(sampling.sigmas)} {'v' if predicts_velocity(sampling) else 'eps'}",
        "clip": text_encoder_fingerprint(clip),
        "vae": _weights_digest(cast(torch.nn.Module, vae.first_stage_model)),
    }


def text_encoder_fingerprint(clip: CLIP) -> str:
    """Tell text encoders apart by their weights, LoRAs and last layer.

    Parameters
    ----------
    clip : CLIP

    Returns
    -------
    str
    """
    comfy.model_management.load_models_gpu([clip.patcher], force_full_load=True)
    # Not the whole text encoder: checkpoints of Stable Diffusion 1 have no text projection, which is then memory
    # that was never written.
    text_model: Any = text_parts(clip)[0].transformer.text_model
    return f"{_weights_digest(text_model)} {_patches_digest(clip.patcher)} layer {clip.layer_idx}"


def _weights_digest(network: torch.nn.Module, samples: int = 16) -> str:
    """Fingerprint a network by some values of every parameter; tells checkpoints and precisions apart."""
    picked = []
    for parameter in network.parameters():
        flat = parameter.detach().reshape(-1)
        picked.append(flat[:: max(1, len(flat) // samples)].float())
    return digest(torch.cat([values.cpu() for values in picked]))


def _patches_digest(patcher: ModelPatcher) -> str:
    """Fingerprint LoRAs by what they change and how strongly; a dynamic model does not hold them in its weights."""
    changed = [(key, [(patch[0], patch[2]) for patch in patches]) for key, patches in sorted(patcher.patches.items())]
    return hashlib.sha256(repr(changed).encode()).hexdigest()[:16] if changed else "unpatched"
