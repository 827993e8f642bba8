"""Holding a word near its anchors by a bound that means the same for every schedule (ours, beside the paper's λ).

λ balances two gradients, so what it amounts to depends on steps, rate, batch and number of vectors. A bound on where
the vectors may be does not: after each step they are put back onto it where they have left it.

The last way is directional textual inversion (Kim et al. 2025, arXiv 2512.13672): the vectors stay on a sphere, and
take Riemannian steps on it, all of one length whatever the size of the gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional as F

ANCHOR_LOSS, RADIUS, DIRECTION, BOTH = "anchor loss", "radius", "direction", "radius and anchor loss"
SPHERE = "sphere"
HOLDS = (ANCHOR_LOSS, RADIUS, DIRECTION, BOTH, SPHERE)


class Distance(NamedTuple):
    """How far a word is from its anchors, as a share of their length, and how far it may be; None is anywhere."""

    value: float
    allowed: float | None = None


@dataclass(frozen=True)
class Hold:
    """How the vectors of a word are held near their anchor point ā = Σ_i δ_i a_i.

    Attributes
    ----------
    kind : str
        One of `HOLDS`. "anchor loss" is the paper's (Eq. 6 in the loss, no bound); "radius" bounds ‖e − ā‖ ≤ r·‖ā‖;
        "direction" fixes the norm at the class noun's and bounds the angle to ā; "radius and anchor loss" has both;
        "sphere" fixes the norm and takes steps on the direction, drawn to that of ā.
    radius : float
        r, above 0.
    angle : float
        Largest angle to ā in degrees, above 0, at most 180.
    concentration : float
        κ of the von Mises-Fisher prior of "sphere", at least 0.
    rate : float
        Length of a step of "sphere", on the unit sphere.
    """

    kind: str = ANCHOR_LOSS
    radius: float = 0.5
    angle: float = 40.0
    concentration: float = 1e-4
    rate: float = 0.005

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
            Of the class noun's embedding; of the sphere where there is one.

        Returns
        -------
        Tensor (k, D)
            Equal to `vectors` where they are within the bound.
        """
        if self.kind == SPHERE:
            return F.normalize(vectors, dim=1) * norm
        if self.kind == DIRECTION:
            return _within_angle(vectors, points, math.radians(self.angle)) * norm
        if not self.has_bound:
            return vectors
        away = vectors - points
        room = self.radius * points.norm(dim=1, keepdim=True)
        distance = away.norm(dim=1, keepdim=True)
        return torch.where(distance > room, points + away * (room / distance.clamp(min=_tiny(vectors))), vectors)

    def distance(self, vectors: torch.Tensor, points: torch.Tensor) -> Distance:
        """Return how far the farthest of the vectors (k, D) is from its point; of directions, along the chord."""
        if self.kind in (DIRECTION, SPHERE):
            vectors, points = F.normalize(vectors, dim=1), F.normalize(points, dim=1)
        value = ((vectors - points).norm(dim=1) / points.norm(dim=1).clamp(min=_tiny(vectors))).max()
        chord = 2 * math.sin(math.radians(self.angle) / 2)
        return Distance(float(value), {RADIUS: self.radius, BOTH: self.radius, DIRECTION: chord}.get(self.kind))

    def stepped(self, vectors: torch.Tensor, gradient: torch.Tensor, points: torch.Tensor, norm: float) -> torch.Tensor:
        """Take one step of Riemannian gradient descent on the sphere.

        With directions u, and μ that of ā: ``s = norm·∂L/∂e − κμ``, its part along the sphere ``t = s − ⟨s, u⟩u``, and
        ``u ← (u − rate·t/‖t‖) / ‖u − rate·t/‖t‖‖``.

        Parameters
        ----------
        vectors, gradient, points : Tensor (k, D)
            The word's vectors, the loss's gradient by them, and the anchor point of each.
        norm : float
            Of the sphere.

        Returns
        -------
        Tensor (k, D)
            On the sphere; not stepped where the gradient is not finite.
        """
        if not gradient.isfinite().all():
            return self.held(vectors, points, norm)
        unit = F.normalize(vectors, dim=1)
        slope = norm * gradient - self.concentration * F.normalize(points, dim=1)
        along = slope - (slope * unit).sum(1, keepdim=True) * unit
        return F.normalize(unit - self.rate * F.normalize(along, dim=1, eps=_tiny(vectors)), dim=1) * norm


def _within_angle(vectors: torch.Tensor, points: torch.Tensor, most: float) -> torch.Tensor:
    """Unit vectors at most so many radians from the points, in the plane of each pair."""
    towards, unit = F.normalize(points, dim=1), F.normalize(vectors, dim=1)
    cosine = (unit * towards).sum(1, keepdim=True).clamp(-1, 1)
    across = F.normalize(unit - cosine * towards, dim=1)
    turned = math.cos(most) * towards + math.sin(most) * across
    return torch.where(cosine < math.cos(most), turned, unit)


def _tiny(tensor: torch.Tensor) -> float:
    return torch.finfo(tensor.dtype).tiny
