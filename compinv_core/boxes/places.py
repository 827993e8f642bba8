"""Where a phrase belongs: a box, or a soft mask for what no box describes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from ..basics.errors import UserError
from .layout import Box, Layout, box_masks, crop_box

Place = Box | torch.Tensor
"""A box, or a mask (h, w) in [0, 1] that covers the whole picture at any resolution."""

_EVERYWHERE = (0.0, 0.0, 1.0, 1.0)


def place_masks(places: Sequence[Place], height: int, width: int, *, truncate: bool = False) -> torch.Tensor:
    """Rasterise places at the resolution of an attention map (M_i in Eq. 9).

    A soft mask is averaged over each cell and brought to a highest value of 1, so that a thin one keeps its say.

    Parameters
    ----------
    places : sequence of Place, length N
    height, width : int
        Cells of the map.
    truncate : bool, optional
        Of boxes; see `layout.box_masks`.

    Returns
    -------
    Tensor (N, height, width), float32
        In [0, 1]; none is empty, truncated boxes aside.
    """
    if not places:
        return torch.zeros(0, height, width)
    return torch.cat(
        [
            _pooled(place, height, width)
            if isinstance(place, torch.Tensor)
            else box_masks([place], height, width, truncate=truncate)
            for place in places
        ]
    )


def layout_from_masks(masks: torch.Tensor, phrases: Sequence[str]) -> Layout:
    """Join masks (N, h, w) in [0, 1], of the picture's size, and phrases in the same order.

    Raises
    ------
    UserError
        When the numbers differ, a mask is empty, or a phrase is repeated.
    """
    with torch.inference_mode(False):
        masks = masks.detach().float().cpu().clone()
        masks = masks[None] if masks.ndim == 2 else masks
    if masks.ndim != 3 or not masks.numel() or not masks.isfinite().all():
        raise UserError(
            f"`masks` has the shape {tuple(masks.shape)}, or holds NaN or infinity; connect one mask for each phrase."
        )
    # What an empty mask is surrounded by does not matter: the layout refuses it.
    boxes = tuple(bounding_box(mask) if mask.any() else _EVERYWHERE for mask in masks)[: len(phrases)]
    boxes += (_EVERYWHERE,) * (len(phrases) - len(boxes))
    return Layout(tuple(phrases), boxes, masks.shape[-1], masks.shape[-2], masks)


def crop_place(place: Place, area: Box) -> Place | None:
    """Express a place in the coordinates of a part of the picture; None where they do not meet.

    A mask that is nowhere half as high there as its highest is not there, as in `bounding_box`.

    Parameters
    ----------
    area : (x0, y0, x1, y1)
        The part, as fractions of the picture.
    """
    if not isinstance(place, torch.Tensor):
        return crop_box(place, area)
    height, width = place.shape
    left, top = (min(round(start * size), size - 1) for start, size in ((area[0], width), (area[1], height)))
    right, bottom = max(round(area[2] * width), left + 1), max(round(area[3] * height), top + 1)
    part = place[top:bottom, left:right]
    return part if float(part.max()) >= float(place.max()) / 2 else None


def bounding_box(place: Place) -> Box:
    """Return a box as it is, and of a mask the smallest box around what is at least half as high as its highest."""
    if not isinstance(place, torch.Tensor):
        return place
    inside = place >= place.max() / 2
    rows, columns = (inside.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    height, width = place.shape
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height


def _pooled(mask: torch.Tensor, height: int, width: int) -> torch.Tensor:
    cells = F.interpolate(mask[None, None].float(), (height, width), mode="area")[0]
    return cells / cells.max()
