"""Full-size networks on tensors without memory, and what a pass through them keeps for backward."""

from __future__ import annotations

from typing import Any

import torch

from support import checkpoints, host

SHAPES: dict[str, dict[str, Any]] = {"sd1": checkpoints.UNETS["full"], "sdxl": checkpoints.UNETS["sdxl_full"]}


class EfficientAttention(torch.autograd.Function):
    """Saves what the memory-efficient kernels save: the inputs and the output."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out)
        return out


def full_network(kind: str, dtype: torch.dtype = torch.float32) -> Any:
    """A UNet of full size on tensors without memory."""
    host.start()
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    shape: dict[str, Any] = {**checkpoints.SHARED_UNET, **SHAPES[kind]}
    return UNetModel(**shape, dtype=dtype, device="meta", operations=comfy.ops.disable_weight_init)


class Kept:
    """Counts the memory that autograd keeps beside a network's weights; its `hooks` are to be entered."""

    def __init__(self, network: torch.nn.Module) -> None:
        self._weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
        self._storages: dict[int, torch.UntypedStorage] = {}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.keep, lambda tensor: tensor)

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """Count a tensor, once for its memory."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._weights:
            self._storages[storage._cdata] = storage
        return tensor

    def leave_out(self, tensors: Any) -> None:
        """Do not count these tensors, weights as well."""
        self._weights |= {tensor.untyped_storage()._cdata for tensor in tensors}

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(storage.nbytes() for storage in self._storages.values())


def efficient_attention(func: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """For the host's ``optimized_attention_override``."""
    return EfficientAttention.apply(q, k, v)
