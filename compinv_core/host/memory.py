"""Whether a training fits into the memory that the host has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.model_management

from ..optimizers import check_optimizer
from ..training_memory import MemoryEstimate, estimate_memory
from ..tuning_config import TuningConfig
from .training_session import activation_bytes

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP


def check_memory(model: ModelPatcher, clip: CLIP, config: TuningConfig, batch_shape: tuple[int, ...]) -> MemoryEstimate:
    """Refuse a training that cannot fit beside the model; the models are loaded for it.

    Parameters
    ----------
    model, clip
    config : TuningConfig
    batch_shape : tuple of int
        (batch, C, h, w) of one forward pass.

    Returns
    -------
    MemoryEstimate

    Raises
    ------
    UserError
    """
    device, optimizer, checkpointing = model.load_device, config.optimizer, config.gradient_checkpointing
    check_optimizer(optimizer, device)
    comfy.model_management.load_models_gpu([model, clip.patcher], force_full_load=True)
    compute = model.model.get_dtype_inference()
    sizes, frozen = [0], 0
    for name, parameter in model.model.diffusion_model.named_parameters():
        if config.trains_weight(name):
            sizes.append(parameter.numel())
        elif parameter.dtype != compute:
            frozen += parameter.numel() * compute.itemsize
    activations = activation_bytes(model, batch_shape, checkpointing)
    estimate = estimate_memory(sum(sizes), max(sizes), optimizer, compute.itemsize, frozen, activations)
    estimate.check(_available(model, clip), str(device), _cures(optimizer, checkpointing, batch_shape[0]))
    return estimate


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
