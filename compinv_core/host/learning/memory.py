"""Whether a training fits into the memory that the host has."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import comfy.model_management
import torch

from ...basics.errors import UserError, remark
from ...learning.settings import InversionConfig
from ...training.low_rank import factor_shapes
from ...training.memory import Activations, MemoryEstimate, activation_bytes, estimate_memory
from ..family import Family, inference_type
from .trained_weights import low_rank_layers

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP


def check_memory(
    model: ModelPatcher,
    clip: CLIP,
    config: InversionConfig,
    trains_weight: Callable[[str], bool],
    batch_shape: tuple[int, ...],
) -> tuple[MemoryEstimate, str]:
    """Return what a training will need beside the model, and a sentence of it; refuse what cannot fit.

    The models are loaded for it.

    Of a word alone nearly all of that are activations, which are reckoned generously: it is warned of, not refused.

    `batch_shape` is (batch, C, h, w) of one forward pass.

    Raises
    ------
    UserError
    """
    device = model.load_device
    comfy.model_management.load_models_gpu([model, clip.patcher], force_full_load=True)
    per_cell = Family.of(config.method.node_name, model).activations
    compute = model.model.get_dtype_inference()
    network, text_encoder = model.model.diffusion_model, clip.cond_stage_model
    estimate = needed_memory(network, text_encoder, config, trains_weight, batch_shape, compute, per_cell)
    free = _available(model, clip)
    try:
        estimate.check(free, str(device), _cures(config, batch_shape[0]))
    except UserError as error:
        if config.method.trains_model:
            raise
        remark(f"{config.method.node_name} may run out of memory: {error}")
    needs = f"{config.method.node_name} needs about {estimate.description} beside the models"
    time = f"how long its {config.steps} steps take is told after the first"
    return estimate, f"{needs}; {free / 1e9:.1f} GB are free on {device}; {time}."


def needed_memory(
    network: torch.nn.Module,
    text_encoder: torch.nn.Module,
    config: InversionConfig,
    trains_weight: Callable[[str], bool],
    batch_shape: tuple[int, ...],
    compute: torch.dtype,
    per_cell: Activations,
) -> MemoryEstimate:
    """Return what a training needs beside the weights of its models, of which only the shapes and types count.

    Parameters
    ----------
    trains_weight : callable (name of a parameter) -> bool
        Which weights of the network are trained, themselves or by factors.
    batch_shape : tuple of int
        (batch, C, h, w) of one forward pass.
    compute : torch.dtype
        What the network computes in.
    """
    sizes, frozen = [0], 0
    whole = trains_weight
    if config.low_rank is not None:
        whole = lambda name: False  # noqa: E731
        for layer in low_rank_layers(network, trains_weight).values():
            sizes += map(math.prod, factor_shapes(layer.weight.shape, config.low_rank.rank))
    for name, parameter in network.named_parameters():
        if whole(name):
            sizes.append(parameter.numel())
        elif parameter.dtype != compute:
            frozen += parameter.numel() * compute.itemsize
    # The text encoder computes in float32 while it passes gradients on.
    frozen += sum(parameter.numel() * torch.float32.itemsize
                  for parameter in text_encoder.parameters() if parameter.dtype != torch.float32)  # fmt: skip
    activations = activation_bytes(batch_shape, compute.itemsize, config.gradient_checkpointing, per_cell)
    return estimate_memory(sum(sizes), max(sizes), config.optimizer, compute.itemsize, frozen, activations)


def step_activations(model: ModelPatcher, latent_shape: tuple[int, ...], checkpointing: bool) -> float:
    """Return about how many bytes the activations of a step take; see `training.memory.activation_bytes`."""
    per_cell = Family.of("The training", model).activations
    return activation_bytes(latent_shape, inference_type(model).itemsize, checkpointing, per_cell)


def pictures_at_once(model: ModelPatcher, clip: CLIP, picture_shape: tuple[int, ...]) -> int:
    """Return for how many pictures, (C, h, w) each, a training of words finds room in half of the memory; at least one.

    The other half is for what the estimate does not see.
    """
    comfy.model_management.load_models_gpu([model, clip.patcher], force_full_load=True)
    one = step_activations(model, (1, *picture_shape), False)
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


def _cures(config: InversionConfig, batch: int) -> str:
    last = "or train a method that changes less of the model" if config.method.trains_model else "or free memory"
    cures = ["use smaller images", last]
    if batch > 1:
        cures.insert(0, "lower batch_size")
    if not config.gradient_checkpointing:
        cures.insert(0, "turn gradient_checkpointing on")
    if not config.train_rank and config.method.trains_model:
        cures.insert(0, "set train_rank, which trains thin factors in the place of whole weights")
    if config.optimizer == "adamw" and config.method.trains_model:
        cures.insert(0, "choose the optimizer adafactor")
    return ", ".join(cures)
