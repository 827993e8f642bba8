"""Boxes from attention maps: where a model that no learned word disturbs would put things."""

from __future__ import annotations

import torch

from ..basics.errors import UserError
from ..boxes.geometry import centres_to_corners, separate
from ..boxes.layout import Box

SMALLEST_SIDE = 0.3
"""Of a box's side before boxes are moved apart, as a share of the picture's."""
LEAST_AREA = 0.01
"""Of every box at the end, as a share of the picture."""
MOST_BOXES = 8
# Sides of an even spread over its standard deviation.
_EVEN = 12**0.5


def boxes_from_maps(maps: torch.Tensor) -> tuple[Box, ...]:
    """Give every map a box: disjoint boxes, none smaller than `LEAST_AREA`.

    A cell counts for a map by how much of that map is there, times its share among all maps; what is below half of the
    highest such value does not count. The box has the centre of mass and the spread of what is left,
    but no side is longer than 1/√P.

    Parameters
    ----------
    maps : Tensor (P, h, w)
        Not negative.

    Returns
    -------
    tuple of (x0, y0, x1, y1), length P

    Raises
    ------
    UserError
        When there are more than `MOST_BOXES`, or there is no room for so many.
    """
    if len(maps) > MOST_BOXES:
        raise _too_many(len(maps))
    shares = maps.double() / maps.double().sum((1, 2), keepdim=True)
    own = shares * shares / shares.sum(0).clamp_min(torch.finfo(shares.dtype).tiny)
    own = own * (own >= own.amax((1, 2), keepdim=True) / 2)
    own = own / own.sum((1, 2), keepdim=True)
    centres = []
    for axis in (2, 1):
        size = maps.shape[axis]
        places = (torch.arange(size, dtype=own.dtype) + 0.5) / size
        along = own.sum(3 - axis)
        middle = along @ places
        spread = (along * (places - middle[:, None]).square()).sum(1).sqrt() * _EVEN
        centres.append((middle, spread.clamp(SMALLEST_SIDE, len(maps) ** -0.5)))
    (x, w), (y, h) = centres
    x, y = x.clamp(w / 2, 1 - w / 2), y.clamp(h / 2, 1 - h / 2)
    boxes = separate(centres_to_corners(torch.stack([x, y, w, h], 1)), 0.0)
    if float((boxes[:, 2:] - boxes[:, :2]).prod(1).min()) < LEAST_AREA:
        raise _too_many(len(maps))
    return tuple((a, b, c, d) for a, b, c, d in boxes.tolist())


def _too_many(count: int) -> UserError:
    return UserError(
        f"Layout From Model cannot find room for {count} things in one picture; write fewer `phrases`, or draw the "
        "boxes with Create Bounding Boxes."
    )
