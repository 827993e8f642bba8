"""Weights as they are computed with, while gradients pass through them.

The host may keep a network's weights in another type than it computes in, or on another device, and cast them at
every use: on cards that stream weights (dynamic memory), in low-memory modes, or for files of another precision.
Autograd then saves those casts, and the host may reuse the buffer of one that is saved. Networks that were loaded a
second time may hold the file's type with layers that do not cast at all. So what is differentiated through is brought
into the computing type, and held there as long as a graph lives.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import comfy.model_management
import torch

from ..basics.errors import UserError

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


def resident(patcher: ModelPatcher) -> ModelPatcher:
    """Return a patcher whose weights stay where they are while gradients are computed.

    Weights that the host streams in and evicts again (dynamic memory, on GPUs) may be gone before backward needs them.

    Returns
    -------
    ModelPatcher
        The very patcher, or a clone without dynamic memory; all such clones of a patcher share one network, which the
        host reads from the file once. Its layers may hold the file's type: see `held_weights`.

    Raises
    ------
    UserError
        When the loader that made it cannot load it again without dynamic memory.
    """
    dynamic: Any = patcher
    if not getattr(dynamic, "is_dynamic", lambda: False)():
        return patcher
    try:
        with torch.inference_mode(False):
            return dynamic.get_non_dynamic_delegate()
    except RuntimeError as error:
        raise UserError(
            "The model comes from a loader that cannot load it without dynamic memory; use Load Checkpoint, or start "
            "ComfyUI with --disable-dynamic-vram."
        ) from error


@contextmanager
def in_training() -> Iterator[None]:
    """Tell the host while the block runs that gradients are taken, so that it leaves its kernels without a backward."""
    before = comfy.model_management.in_training
    comfy.model_management.in_training = True
    try:
        yield
    finally:
        comfy.model_management.in_training = before


@contextmanager
def held_weights(
    network: torch.nn.Module, dtype: torch.dtype, device: torch.device, without_casting: bool = False
) -> Iterator[None]:
    """Hold a network's weights in the type and on the device that it computes with while the block runs.

    Autograd saves such casts anyway, so holding them costs no more at the peak, and it saves the casting at every use.
    The original parameters come back in the end, the very same objects. Where nothing differs, nothing is done.

    Parameters
    ----------
    without_casting : bool
        Only those of layers that the host does not cast for, which could not be evaluated at all.
    """
    originals: list[tuple[torch.nn.Module, str, torch.nn.Parameter]] = []
    try:
        with torch.inference_mode(False), torch.no_grad():
            for module in network.modules():
                # The host casts the few rows looked up in an embedding, not the table.
                if isinstance(module, torch.nn.Embedding):
                    continue
                if without_casting and getattr(module, "comfy_cast_weights", False):
                    continue
                for name, parameter in module._parameters.items():
                    if _differs(parameter, dtype, device):
                        assert parameter is not None
                        originals.append((module, name, parameter))
                        held = parameter.detach().to(device, dtype)
                        module._parameters[name] = torch.nn.Parameter(held, requires_grad=False)
        yield
    finally:
        for module, name, parameter in originals:
            module._parameters[name] = parameter


def _differs(parameter: torch.nn.Parameter | None, dtype: torch.dtype, device: torch.device) -> bool:
    # Trained weights have their own place and type, and quantised ones are no plain memory.
    if type(parameter) is not torch.nn.Parameter or parameter.requires_grad or not parameter.is_floating_point():
        return False
    elsewhere = parameter.device.type != device.type or device.index not in (None, parameter.device.index)
    return parameter.dtype != dtype or elsewhere
