"""Whether a training fits into the memory that the host has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import comfy.model_management
import torch

from ... import logger
from ...learning.settings import InversionConfig
from ...training.memory import MemoryEstimate, activation_bytes, estimate_memory
from ..family import inference_type

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP


def check_memory(
    model: ModelPatcher,
    clip: CLIP,
    config: InversionConfig,
    trains_weight: Callable[[str], bool],
    batch_shape: tuple[int, ...],
) -> MemoryEstimate:
    """Log what a training will need beside the model, and refuse it where it cannot fit; the models are loaded for it.

    `batch_shape` is (batch, C, h, w) of one forward pass.

    Raises
    ------
    UserError
    """
    device, optimizer, checkpointing = model.load_device, config.optimizer, config.gradient_checkpointing
    comfy.model_management.load_models_gpu([model, clip.patcher], force_full_load=True)
    compute = model.model.get_dtype_inference()
    sizes, frozen = [0], 0
    for name, parameter in model.model.diffusion_model.named_parameters():
        if trains_weight(name):
            sizes.append(parameter.numel())
        elif parameter.dtype != compute:
            frozen += parameter.numel() * compute.itemsize
    # The text encoder computes in float32 while it passes gradients on.
    frozen += sum(parameter.numel() * torch.float32.itemsize
                  for parameter in clip.cond_stage_model.parameters() if parameter.dtype != torch.float32)  # fmt: skip
    activations = activation_bytes(batch_shape, compute.itemsize, checkpointing)
    estimate = estimate_memory(sum(sizes), max(sizes), optimizer, compute.itemsize, frozen, activations)
    free = _available(model, clip)
    estimate.check(free, str(device), _cures(optimizer, checkpointing, batch_shape[0]))
    logger.info("%s needs about %s beside the models; %.1f GB are free on %s.",
                config.method.node_name, estimate.description, free / 1e9, device)  # fmt: skip
    return estimate


def pictures_at_once(model: ModelPatcher, clip: CLIP, picture_shape: tuple[int, ...]) -> int:
    """Return for how many pictures, (C, h, w) each, a training of words finds room in half of the memory; at least one.

    The other half is for what the estimate does not see.
    """
    comfy.model_management.load_models_gpu([model, clip.patcher], force_full_load=True)
    one = activation_bytes((1, *picture_shape), inference_type(model).itemsize, False)
    return max(1, int(_available(model, clip) / 2 / one))


def _available(model: ModelPatcher, clip: CLIP) -> float:
    """Return the bytes that are free, and those of other models, which the host unloads for a training."""
    device = model.load_device
    free: Any = comfy.model_management.get_free_memory(device)
    if device.type == "cpu":
        return free
    kept = (model.model, clip.patcher.model)
    return free + sum(
        other.model_loaded_memory()
        for other in comfy.model_management.current_loaded_models
        if other.device == device and other.model is not None and not any(other.model.model is own for own in kept)
    )


def _cures(optimizer: str, checkpointing: bool, batch: int) -> str:
    cures = ["use smaller images", "or train a method that changes less of the model"]
    if batch > 1:
        cures.insert(0, "lower batch_size")
    if not checkpointing:
        cures.insert(0, "turn gradient_checkpointing on")
    if optimizer == "adamw":
        cures.insert(0, "choose the optimizer adafactor")
    return ", ".join(cures)
