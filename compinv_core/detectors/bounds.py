"""Limits for files of strangers: what may be read, and how much a network that they describe may allocate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

LARGEST_FILE = 4 << 30
"""Bytes of a detector."""

_LARGEST_SIDE = 4096
_SPARE_BYTES = 256 << 20
_DEEPEST, _MOST_VALUES = 32, 100_000


def plain_data(value: Any) -> Any:
    """Return nested data as dictionaries with text keys, lists, texts and numbers; None in the place of anything else.

    Raises
    ------
    ValueError
        When it nests too deeply, as what contains itself does, or has too many values.
    """
    count = 0

    def copied(value: Any, depth: int) -> Any:
        nonlocal count
        count += 1
        if depth > _DEEPEST or count > _MOST_VALUES:
            raise ValueError("it contains itself, or too much")
        if isinstance(value, Mapping):
            return {str(key): copied(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [copied(item, depth + 1) for item in value]
        return value if isinstance(value, (str, int, float, bool)) else None

    return copied(value, 0)


def check_sides(processor: Any) -> None:
    """Refuse an image processor of `transformers` that makes pictures of no sensible size.

    Raises
    ------
    ValueError
    """
    for name in ("size", "crop_size", "pad_size"):
        size = dict(getattr(processor, name, None) or {})
        if not all(side is None or (isinstance(side, int) and 1 <= side <= _LARGEST_SIDE) for side in size.values()):
            raise ValueError(f"{name} {size}")


class MemoryBudget(TorchFunctionMode):
    """Stops the building of a network that would allocate far more than its weights take.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Those of the file.

    Raises
    ------
    MemoryError
        From within, where the network is built.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self._left = _SPARE_BYTES + 4 * sum(tensor.numel() * tensor.element_size() for tensor in weights.values())

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _FACTORIES:
            self._left -= result.numel() * result.element_size()
            if self._left < 0:
                raise MemoryError("the network is larger than its weights")
        return result


_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.arange}
