"""Networks of other libraries under the host's memory management."""

from __future__ import annotations

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher


def managed_by_host(network: torch.nn.Module) -> ModelPatcher:
    """Return a patcher by which the host moves a network to its device when it is used, and away when it needs room."""
    # The plain patcher: weights that the host streams (dynamic VRAM) need its own layers, which these are not. The
    # list is there because the patcher writes attributes that the networks have for other purposes.
    return ModelPatcher(
        torch.nn.ModuleList([network]),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=torch.device("cpu"),
    )
