"""Holding a word near its anchors by a bound that means the same for every schedule (ours, beside the paper's λ).

λ balances two gradients, so what it amounts to depends on steps, rate, batch and number of vectors. A bound on where
the vectors may be does not: after each step they are put back onto it where they have left it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

ANCHOR_LOSS, RADIUS, DIRECTION, BOTH = "anchor loss", "radius", "direction", "radius and anchor loss"
HOLDS = (ANCHOR_LOSS, RADIUS, DIRECTION, BOTH)


@dataclass(frozen=True)
class Hold:
    """How the vectors of a word are held near their anchor point ā = Σ_i δ_i a_i.

    Attributes
    ----------
    kind : str
        One of `HOLDS`. "anchor loss" is the paper's (Eq. 6 in the loss, no bound); "radius" bounds ‖e − ā‖ ≤ r·‖ā‖;
        "direction" fixes the norm at the class noun's and bounds the angle to ā; the last has loss and radius.
    radius : float
        r, above 0.
    angle : float
        Largest angle to ā in degrees, above 0, at most 180.
    """

    kind: str = ANCHOR_LOSS
    radius: float = 0.5
    angle: float = 40.0

    @property
    def has_loss(self) -> bool:
        """Whether λ weighs an anchor loss."""
        return self.kind in (ANCHOR_LOSS, BOTH)

    @property
    def has_bound(self) -> bool:
        """Whether vectors are put back."""
        return self.kind != ANCHOR_LOSS

    def held(self, vectors: torch.Tensor, points: torch.Tensor, norm: float) -> torch.Tensor:
        """Return the nearest vectors that the bound allows.

        Parameters
        ----------
        vectors, points : Tensor (k, D)
            The word's vectors, and the anchor point of each.
        norm : float
            Of the class noun's embedding.

        Returns
        -------
        Tensor (k, D)
            Equal to `vectors` where they are within the bound.
        """
        if self.kind == DIRECTION:
            return _within_angle(vectors, points, math.radians(self.angle)) * norm
        if not self.has_bound:
            return vectors
        away = vectors - points
        room = self.radius * points.norm(dim=1, keepdim=True)
        distance = away.norm(dim=1, keepdim=True)
        return torch.where(distance > room, points + away * (room / distance.clamp(min=_tiny(vectors))), vectors)


def _within_angle(vectors: torch.Tensor, points: torch.Tensor, most: float) -> torch.Tensor:
    """Unit vectors at most so many radians from the points, in the plane of each pair."""
    towards, unit = F.normalize(points, dim=1), F.normalize(vectors, dim=1)
    cosine = (unit * towards).sum(1, keepdim=True).clamp(-1, 1)
    across = F.normalize(unit - cosine * towards, dim=1)
    turned = math.cos(most) * towards + math.sin(most) * across
    return torch.where(cosine < math.cos(most), turned, unit)


def _tiny(tensor: torch.Tensor) -> float:
    return torch.finfo(tensor.dtype).tiny
