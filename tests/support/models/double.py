"""The host's networks in float64, although its code asks for float32 by name."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class InDouble(TorchFunctionMode):
    """While active, every request for float32 gives float64: `.float()`, `.to(torch.float32)`, `dtype=…`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        return func(*(_double(value) for value in args), **{key: _double(v) for key, v in (kwargs or {}).items()})


def _double(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def central_difference(function: Any, point: torch.Tensor, direction: torch.Tensor, step: float = 1e-4) -> float:
    """Slope of a function of a float64 tensor along a direction, with an error of the order of step squared."""
    with torch.no_grad():
        return float(function(point + step * direction) - function(point - step * direction)) / (2 * step)
