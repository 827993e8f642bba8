"""Gradients through a model that ComfyUI loaded and runs under ``torch.inference_mode``.

The executor runs every node in inference mode, so parameters, latents and conditioning are *inference tensors*, which
autograd refuses to save for backward. Everything here works on zero-copy normal tensors over the same storage; the
values are never copied and never changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.ldm.modules.attention as host_attention
import torch
from torch.overrides import TorchFunctionMode

_PLAIN_TENSORS = (torch.Tensor, torch.nn.Parameter)


def rewrap(tensor: torch.Tensor) -> torch.Tensor:
    """Return a normal tensor over the storage of an inference tensor, without a copy.

    Parameters
    ----------
    tensor : Tensor, any shape, any dtype
        Usually an inference tensor. Tensor subclasses (quantised weights) are copied, because their storage is not
        the value.

    Returns
    -------
    Tensor
        Same values, shape, strides, dtype and device; not an inference tensor; needs no gradient.

    Raises
    ------
    RuntimeError
        When called in inference mode, where every new tensor would again be an inference tensor.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("rewrap must run outside inference mode (use `with torch.inference_mode(False)`).")
    if type(tensor) not in _PLAIN_TENSORS:
        return tensor.detach().clone()
    normal = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return normal.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())


def normalise_parameters(module: torch.nn.Module) -> int:
    """Replace the inference-tensor parameters and buffers of a module by normal ones over the same storage.

    Needed where `InferenceTensorGuard` does not reach, for example in the recomputation of a checkpointed block. The
    change is permanent and harmless: values, memory and gradients-not-required stay as they are.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place, with all its children.

    Returns
    -------
    int
        How many parameters and buffers were replaced.

    Raises
    ------
    RuntimeError
        When called in inference mode (see `rewrap`).
    """
    replaced = 0
    for child in module.modules():
        for name, parameter in list(child._parameters.items()):
            if parameter is not None and parameter.is_inference():
                child._parameters[name] = torch.nn.Parameter(rewrap(parameter), requires_grad=False)
                replaced += 1
        for name, buffer in list(child._buffers.items()):
            if buffer is not None and buffer.is_inference():
                child._buffers[name] = rewrap(buffer)
                replaced += 1
    return replaced


class InferenceTensorGuard(TorchFunctionMode):
    """Let autograd run through a model whose weights and inputs are inference tensors.

    While the guard is entered, outside inference mode, every inference tensor that reaches a torch function is replaced
    by its `rewrap`; nothing in the model is mutated. The guard is not active in the recomputation of checkpointed
    blocks; see `normalise_parameters`.

    Examples
    --------
    >>> with torch.inference_mode(False), torch.enable_grad(), InferenceTensorGuard():
    ...     loss = model(x.clone().requires_grad_(True)).sum()
    """

    def __init__(self) -> None:
        super().__init__()
        # The inference tensor is kept beside its replacement, so that its id cannot be taken by another tensor.
        self._normal: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():
            return func(*args, **kwargs)
        args = tuple([self._replace(value) for value in args])
        if kwargs:
            kwargs = {name: self._replace(value) for name, value in kwargs.items()}
        return func(*args, **kwargs)

    def _replace(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._normal_of(value) if value.is_inference() else value
        if type(value) in (list, tuple):
            return type(value)([self._replace(item) for item in value])
        return value

    def _normal_of(self, tensor: torch.Tensor) -> torch.Tensor:
        known = self._normal.get(id(tensor))
        if known is None:
            known = self._normal[id(tensor)] = (tensor, rewrap(tensor))
        return known[1]


def pytorch_attention_override(func: Callable, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Compute the host's attention with PyTorch's own kernel, which has a backward pass.

    For ``transformer_options["optimized_attention_override"]``: the kernels that the host may have chosen (Sage, Flash)
    have none.

    Parameters
    ----------
    func : callable
        The attention function that the host would have called; not used.
    *args, **kwargs
        Its arguments: q, k, v (B, N, heads * dim) and options.

    Returns
    -------
    Tensor (B, N, heads * dim)
    """
    return host_attention.attention_pytorch(*args, **kwargs)
