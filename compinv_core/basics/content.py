"""Payloads that are equal when their contents are, tensors included; so hosts and other packs can compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch


class ByContent:
    """Base of frozen dataclasses (``eq=False``) that hold tensors: equal by content, hashed by type."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, each.name), getattr(other, each.name)) for each in fields(self) if each.compare)  # type: ignore[arg-type]

    def __hash__(self) -> int:
        # Tensors have no hash of their content; equal payloads of one type meet in one bucket.
        return hash(type(self))


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and torch.equal(left.cpu(), right.cpu())
    if isinstance(left, torch.nn.Module) and isinstance(right, torch.nn.Module):
        return type(left) is type(right) and _same(dict(left.state_dict()), dict(right.state_dict()))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, Sequence) and isinstance(right, Sequence) and not isinstance(left, (str, bytes)):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)
