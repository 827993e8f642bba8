"""Fingerprints: short texts that change when what they stand for does."""

from __future__ import annotations

import hashlib

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
