"""Boxes as tensors: their forms, overlaps and losses, and layouts without overlap.

Corners are ``(x0, y0, x1, y1)``, centres are ``(cx, cy, w, h)``, both as fractions of the picture, origin top left.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from .layout import Box

# A box below this share of a side would cover less than one cell of the coarsest attention map of a 512-pixel picture.
SMALLEST_SIDE = 1 / 8
LARGEST_OVERLAP = 0.1
"""Intersection over union up to which `separate` leaves two boxes alone."""

_ROUNDS = 400
_ROUNDS_BEFORE_SHRINKING = 40
_SHRINK = 0.97
# Ends a push slightly beyond the goal, so that rounding does not leave a pair on the wrong side of it.
_MARGIN = 1e-3


def centres_to_corners(boxes: torch.Tensor) -> torch.Tensor:
    """Convert ``(cx, cy, w, h)`` to ``(x0, y0, x1, y1)``, (..., 4)."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def corners_to_centres(boxes: torch.Tensor) -> torch.Tensor:
    """Convert ``(x0, y0, x1, y1)`` to ``(cx, cy, w, h)``, (..., 4)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], -1)


def mirrored(corners: torch.Tensor) -> torch.Tensor:
    """Mirror boxes at the picture's vertical middle line."""
    x0, y0, x1, y1 = corners.unbind(-1)
    return torch.stack([1 - x1, y0, 1 - x0, y1], -1)


def box_iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Intersection over union of corresponding boxes.

    Parameters
    ----------
    first, second : Tensor (..., 4)
        Corners.

    Returns
    -------
    Tensor (...)
        In [0, 1]; 0 where both are empty.
    """
    overlap, union = _overlap_and_union(first, second)
    return overlap / union.clamp(min=torch.finfo(union.dtype).tiny)


def generalized_iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Generalised intersection over union (Rezatofighi et al. 2019) of corresponding boxes.

    IoU minus the share of the smallest enclosing box that neither of the two covers, so that it has a gradient also
    where the boxes do not meet.

    Parameters
    ----------
    first, second : Tensor (..., 4)
        Corners.

    Returns
    -------
    Tensor (...)
        In (-1, 1].
    """
    # torchvision's form for corresponding boxes adds 1e-7 to its denominators: equal boxes would still lose 1e-7.
    smallest = torch.finfo(first.dtype).tiny
    overlap, union = _overlap_and_union(first, second)
    low = torch.minimum(first[..., :2], second[..., :2])
    high = torch.maximum(first[..., 2:], second[..., 2:])
    enclosing = (high - low).clamp(min=0).prod(-1)
    return overlap / union.clamp(min=smallest) - (enclosing - union) / enclosing.clamp(min=smallest)


def box_loss(predicted: torch.Tensor, target: torch.Tensor, beta: float = 0.1) -> torch.Tensor:
    """Regression loss of predicted boxes: smooth L1 plus ``1 - GIoU`` (with Eq. 8).

    Parameters
    ----------
    predicted, target : Tensor (..., 4)
        Centres.
    beta : float, default 0.1
        Difference, as a fraction of the picture, at which smooth L1 changes from square to absolute.

    Returns
    -------
    Tensor (...)
        Smooth L1 is the sum over the four coordinates.
    """
    distance = F.smooth_l1_loss(predicted, target, reduction="none", beta=beta).sum(-1)
    return distance + 1 - generalized_iou(centres_to_corners(predicted), centres_to_corners(target))


def side_by_side(count: int) -> tuple[Box, ...]:
    """Equal boxes in a row, from left to right, over the middle of the picture's height.

    Returns
    -------
    tuple of (x0, y0, x1, y1)
    """
    gap = 0.1 / count
    return tuple(((i / count) + gap / 2, 0.2, ((i + 1) / count) - gap / 2, 0.8) for i in range(count))


def inside_picture(corners: torch.Tensor) -> torch.Tensor:
    """Clip boxes to the picture and give each side its least length, moving the box where an edge is in the way."""
    low, high = corners[:, :2].clamp(0, 1), corners[:, 2:].clamp(0, 1)
    middle = (low + high) / 2
    half = ((high - low) / 2).clamp(min=SMALLEST_SIDE / 2)
    middle = torch.minimum(torch.maximum(middle, half), 1 - half)
    return torch.cat([middle - half, middle + half], 1).clamp(0, 1)


def separate(corners: torch.Tensor, largest_overlap: float = LARGEST_OVERLAP) -> torch.Tensor:
    """Move boxes apart, and shrink them where the picture has no room, until no two overlap much.

    Two boxes that overlap too much share the way along the axis on which the way is shorter; of two with the same
    centre the first goes left. Boxes that do not overlap stay where they are.

    Parameters
    ----------
    corners : Tensor (N, 4)
        Inside the picture.
    largest_overlap : float, default `LARGEST_OVERLAP`
        Intersection over union that is tolerated.

    Returns
    -------
    Tensor (N, 4)
        Inside the picture.
    """
    boxes = corners_to_centres(corners.double())
    for round_ in range(_ROUNDS):
        crowded = (_pairwise_iou(centres_to_corners(boxes)) > largest_overlap).nonzero().tolist()
        if not crowded:
            break
        if round_ >= _ROUNDS_BEFORE_SHRINKING:
            boxes[sorted({index for pair in crowded for index in pair}), 2:] *= _SHRINK
        for i, j in crowded:
            _push_apart(boxes, i, j)
        half = boxes[:, 2:] / 2
        boxes[:, :2] = torch.minimum(torch.maximum(boxes[:, :2], half), 1 - half)
    return centres_to_corners(boxes).clamp(0, 1).to(corners.dtype)


def largest_pairwise_iou(boxes: Sequence[Box]) -> float:
    """Return the largest intersection over union of any two boxes; 0 for fewer than two.

    Parameters
    ----------
    boxes : sequence of (x0, y0, x1, y1)
    """
    return float(_pairwise_iou(torch.tensor(boxes, dtype=torch.float64)).max()) if boxes else 0.0


def _pairwise_iou(corners: torch.Tensor) -> torch.Tensor:
    """Return the overlaps (N, N) of each box with those after it; 0 elsewhere."""
    return box_iou(corners[:, None], corners[None]).triu(1)


def _push_apart(boxes: torch.Tensor, i: int, j: int) -> None:
    """Move two boxes away from each other, in place, until they no longer touch along one axis."""
    distance = boxes[j, :2] - boxes[i, :2]
    missing = (boxes[i, 2:] + boxes[j, 2:]) / 2 - distance.abs()
    axis = int(missing.argmin())
    direction = 1.0 if float(distance[axis]) >= 0 else -1.0
    way = direction * (float(missing[axis]) / 2 + _MARGIN)
    boxes[i, axis] -= way
    boxes[j, axis] += way


def _overlap_and_union(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (first, second)]
    return overlap, areas[0] + areas[1] - overlap
