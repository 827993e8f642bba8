"""Fingerprints of the host's models: all bytes of their weights, and the patches on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import comfy.model_management
import torch

from ..basics.digests import digest, text_digest
from .family import predicts_velocity, text_encoders

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

# Earlier versions looked at so many numbers of every weight.
_SAMPLES = 16


def model_fingerprint(model: ModelPatcher, clip: CLIP, vae: VAE) -> dict[str, str]:
    """Describe the models that a result depends on: ``model``, ``noise schedule``, ``clip``, ``vae``."""
    return _model_fingerprint(model, clip, vae, _whole)


def earlier_fingerprint(model: ModelPatcher, clip: CLIP, vae: VAE) -> Callable[[], dict[str, str]]:
    """Return what tells how earlier versions described the same models; it is computed once, when it is asked for."""

    @cache
    def described() -> dict[str, str]:
        return _model_fingerprint(model, clip, vae, _sampled)

    return described


def text_encoder_fingerprint(clip: CLIP) -> str:
    """Tell text encoders apart by their weights, LoRAs and last layer."""
    return _text_encoder(clip, _whole)


def is_text_encoder(clip: CLIP, saved: str) -> bool:
    """Tell whether a saved fingerprint, of this version or an earlier one, is that of a text encoder."""
    return saved == text_encoder_fingerprint(clip) or saved == _text_encoder(clip, _sampled)


def _model_fingerprint(
    model: ModelPatcher, clip: CLIP, vae: VAE, weights: Callable[[torch.nn.Module], str]
) -> dict[str, str]:
    comfy.model_management.load_models_gpu([model, clip.patcher], force_full_load=True)
    sampling: Any = model.get_model_object("model_sampling")
    return {
        "model": f"{weights(model.model.diffusion_model)} {_patches(model)}",
        "noise schedule": f"{digest(sampling.sigmas)} {'v' if predicts_velocity(sampling) else 'eps'}",
        "clip": _text_encoder(clip, weights),
        "vae": weights(cast(torch.nn.Module, vae.first_stage_model)),
    }


def _text_encoder(clip: CLIP, weights: Callable[[torch.nn.Module], str]) -> str:
    comfy.model_management.load_models_gpu([clip.patcher], force_full_load=True)
    # Not the whole text encoder: checkpoints of Stable Diffusion 1 have no text projection, which is then memory that
    # was never written.
    prints = []
    for encoder in text_encoders(clip):
        transformer: Any = encoder.model(clip).transformer
        prints.append(weights(transformer.text_model))
        if encoder.gives_pooled:
            prints.append(weights(transformer.text_projection))
    return f"{' '.join(prints)} {_patches(clip.patcher)} layer {clip.layer_idx}"


def _whole(network: torch.nn.Module) -> str:
    values = (parameter.detach() for parameter in network.parameters())
    # Quantised weights are no plain memory.
    return digest(*(value if type(value) is torch.Tensor else value.float() for value in values))


def _sampled(network: torch.nn.Module) -> str:
    picked = []
    for parameter in network.parameters():
        flat = parameter.detach().reshape(-1)
        picked.append(flat[:: max(1, len(flat) // _SAMPLES)].float())
    return digest(torch.cat([values.cpu() for values in picked]))


def _patches(patcher: ModelPatcher) -> str:
    """Fingerprint LoRAs by what they change and how strongly; a dynamic model does not hold them in its weights."""
    changed = [(key, [(patch[0], patch[2]) for patch in patches]) for key, patches in sorted(patcher.patches.items())]
    return text_digest(repr(changed)) if changed else "unpatched"
