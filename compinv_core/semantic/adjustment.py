"""Repairing a word without photos: its norm towards that of its noun, its direction towards its anchors (ours).

With the class noun as the only anchor, and all of its norm, this is test-time embedding adjustment (TEA, Bui et al.
2025, arXiv 2506.22685) at β = 1: both turn by a share of the angle.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..basics.errors import UserError
from .anchors import Anchors
from .sparse_coding import real_coefficients, sparse_coefficients

SUPERCLASS_SHARE = 0.25
_MOST_ACTIVE = 4


def anchor_codes(vectors: torch.Tensor, anchors: Anchors, superclass: int | None = None) -> torch.Tensor:
    """Code vectors over anchors, leaving out what explains next to nothing.

    Parameters
    ----------
    vectors : Tensor (k, D)
    superclass : int, optional
        Position of the class noun, which keeps a quarter of the code, and all where nothing else is left. Without it
        the nearest anchor stands for it.

    Returns
    -------
    Tensor (k, N), float32
        Non-negative, each row sums to 1.

    Raises
    ------
    UserError
        When a vector is zero or not finite.
    """
    codes = []
    for vector in vectors.detach().float().cpu():
        length = float(vector.norm())
        if not 0 < length < float("inf"):
            raise UserError("A vector of the word is zero or not finite; choose another embedding.")
        code = real_coefficients(vector, anchors.vectors, _MOST_ACTIVE).float()
        own = _nearest(vector, anchors) if superclass is None else superclass
        code = code / code.sum() if code.any() else F.one_hot(torch.tensor(own), len(anchors)).float()
        if superclass is not None and float(code[own]) < SUPERCLASS_SHARE:
            code[own] = 0.0
            code = code * (1 - SUPERCLASS_SHARE) / code.sum()
            code[own] = SUPERCLASS_SHARE
        codes.append(code)
    return torch.stack(codes)


def _nearest(vector: torch.Tensor, anchors: Anchors) -> int:
    return int(sparse_coefficients(vector, anchors.vectors, 1).argmax())


def adjusted(
    vectors: torch.Tensor, points: torch.Tensor, strength: float, norm: float, norm_strength: float = 1.0
) -> torch.Tensor:
    """Turn vectors towards their anchor points, and bring their length towards that of words.

    Parameters
    ----------
    vectors, points : Tensor (k, D)
        None of them zero.
    strength : float in [0, 1]
        Share of the angle that is turned away; 0 leaves the direction as it is.
    norm : float
        Of the class noun's embedding.
    norm_strength : float in [0, 1]
        Share of the way to it, on a logarithmic scale.

    Returns
    -------
    Tensor (k, D)
    """
    unit, towards = F.normalize(vectors, dim=1), F.normalize(points, dim=1)
    angle = (unit * towards).sum(1, keepdim=True).clamp(-1, 1).acos()
    across = F.normalize(towards - (unit * towards).sum(1, keepdim=True) * unit, dim=1)
    turned = (strength * angle).cos() * unit + (strength * angle).sin() * across
    length = vectors.norm(dim=1, keepdim=True)
    return turned * length ** (1 - norm_strength) * norm**norm_strength
