"""Fingerprints: short texts that change when what they stand for does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch

_DIGITS = 16
_CHUNK = 1 << 24


def digest(*tensors: torch.Tensor) -> str:
    """Return 16 hexadecimal digits of SHA-256 over the shapes, types and all bytes of tensors, on any device."""
    summary = hashlib.sha256()
    for tensor in tensors:
        summary.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        for part in flat.split(_CHUNK):
            summary.update(part.cpu().numpy().tobytes())
    return summary.hexdigest()[:_DIGITS]


def text_digest(text: str) -> str:
    """Return 16 hexadecimal digits of SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def differing(
    known: Mapping[str, Any], wanted: Mapping[str, Any], earlier: Callable[[], Mapping[str, Any]] = dict
) -> list[str]:
    """Return the names, sorted, of what differs between a saved fingerprint and the one that is wanted.

    Parameters
    ----------
    earlier : callable () -> mapping
        How earlier versions wrote parts of `wanted`, which is no difference; only asked where there is one.
    """
    names = [name for name in sorted(set(known) | set(wanted)) if known.get(name) != wanted.get(name)]
    if not names:
        return []
    before = earlier()
    return [name for name in names if name not in before or before[name] != known.get(name)]
