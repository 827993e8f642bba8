"""Where each phrase of a prompt belongs in the picture: boxes, their checks, and their masks on attention maps.

Boxes are ``(x0, y0, x1, y1)`` as fractions of the picture, origin top left, half-open: a point on the right or lower
edge does not belong to the box. Pixels exist only at the nodes; see `bounding_boxes`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..basics.content import ByContent
from ..basics.errors import UserError, quoted
from ..words.phrases import check_phrases

Box = tuple[float, float, float, float]

_LARGEST_SIDE = 16384


@dataclass(frozen=True, eq=False)
class Layout(ByContent):
    """Phrases of a prompt and the box, or the soft mask, that each one belongs to.

    Parameters
    ----------
    phrases : tuple of str, length N
        Parts of the prompt, all different; N may be 0, which means no guidance.
    boxes : tuple of (x0, y0, x1, y1), length N
        Fractions of the picture, in [0, 1], with x0 < x1 and y0 < y1.
    width, height : int
        Size in pixels of the picture for which the boxes were made.
    masks : Tensor (N, h, w), optional
        In [0, 1], none of zeros alone; take the place of the boxes, which then only stand around them.

    Raises
    ------
    UserError
        When a value is out of its range, or the numbers of phrases and boxes differ.
    """

    phrases: tuple[str, ...]
    boxes: tuple[Box, ...]
    width: int
    height: int
    masks: torch.Tensor | None = None

    def __post_init__(self) -> None:
        check_size(self.width, self.height)
        if len(self.phrases) != len(self.boxes):
            raise UserError(
                f"The layout has {len(self.phrases)} phrases and {len(self.boxes)} boxes; give one box per phrase."
            )
        check_phrases(self.phrases)
        for phrase, box in zip(self.phrases, self.boxes, strict=True):
            check_box(phrase, box)
        if self.masks is not None:
            _check_masks(self.phrases, self.masks)

    @property
    def places(self) -> tuple[Box | torch.Tensor, ...]:
        """Where each phrase belongs: its mask where there are any, else its box."""
        return self.boxes if self.masks is None else tuple(self.masks)

    def __len__(self) -> int:
        return len(self.phrases)


def check_size(width: int, height: int) -> None:
    """Refuse a size in pixels that no picture has.

    Raises
    ------
    UserError
    """
    if not (1 <= width <= _LARGEST_SIDE and 1 <= height <= _LARGEST_SIDE):
        raise UserError(
            f"The layout's picture is {quoted(width)[1:-1]}×{quoted(height)[1:-1]}; width and height must be "
            f"at least 1 and at most {_LARGEST_SIDE}."
        )


def box_masks(boxes: Sequence[Box], height: int, width: int, *, truncate: bool = False) -> torch.Tensor:
    """Rasterise boxes at the resolution of an attention map (M_i in Eq. 9).

    A cell belongs to a box when its centre does, so boxes that touch never share a cell. A box that holds no centre
    gets the cell in which its own centre lies: no mask is empty.

    Parameters
    ----------
    boxes : sequence of (x0, y0, x1, y1), length N
        Fractions of the picture.
    height, width : int
        Cells of the map.
    truncate : bool, optional
        Cut as the authors' released code does: every edge times the number of cells, truncated to whole cells. A box
        within a row or column of cells then has an empty mask.

    Returns
    -------
    Tensor (N, height, width), float32
        1 inside the box, 0 outside.
    """
    cells = _truncated_cells if truncate else _cells
    masks = torch.zeros(len(boxes), height, width)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[cells(y0, y1, height), cells(x0, x1, width)] = 1.0
    return masks


def crop_box(box: Box, area: Box) -> Box | None:
    """Express a box in the coordinates of a part of the picture.

    Parameters
    ----------
    box : (x0, y0, x1, y1)
        Fractions of the picture.
    area : (x0, y0, x1, y1)
        The part, as fractions of the picture.

    Returns
    -------
    (x0, y0, x1, y1) or None
        Fractions of the part; None where box and part do not meet.
    """
    left, top, right, bottom = area
    x0, x1 = max(box[0], left), min(box[2], right)
    y0, y1 = max(box[1], top), min(box[3], bottom)
    if x0 >= x1 or y0 >= y1:
        return None
    w, h = right - left, bottom - top
    return ((x0 - left) / w, (y0 - top) / h, (x1 - left) / w, (y1 - top) / h)


def check_box(phrase: str, box: Box) -> None:
    """Refuse the box of a phrase that is no box in the picture.

    Raises
    ------
    UserError
    """
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        raise UserError(f'The box of "{phrase}" is {box}; give four finite numbers (x0, y0, x1, y1).')
    x0, y0, x1, y1 = box
    if not (0.0 <= x0 < x1 <= 1.0 and 0.0 <= y0 < y1 <= 1.0):
        raise UserError(
            f'The box of "{phrase}" is {tuple(round(value, 4) for value in box)}; as fractions of the '
            "picture it must have 0 ≤ x0 < x1 ≤ 1 and 0 ≤ y0 < y1 ≤ 1, so move it inside or draw it larger."
        )


def _cells(start: float, stop: float, size: int) -> slice:
    # Cell c has its centre at (c + 0.5) / size; the box holds it when start <= centre < stop.
    first, last = math.ceil(start * size - 0.5), math.ceil(stop * size - 0.5)
    if first >= last:
        first = min(int((start + stop) / 2 * size), size - 1)
        last = first + 1
    return slice(first, last)


def _truncated_cells(start: float, stop: float, size: int) -> slice:
    return slice(int(start * size), int(stop * size))


def _check_masks(phrases: Sequence[str], masks: torch.Tensor) -> None:
    if masks.ndim != 3 or len(masks) != len(phrases):
        raise UserError(
            f"The layout has {len(phrases)} phrases and masks of the shape {tuple(masks.shape)}; give one mask per "
            "phrase, all of one size."
        )
    for phrase, mask in zip(phrases, masks, strict=True):
        if not (mask.isfinite().all() and mask.min() >= 0 and mask.max() <= 1):
            raise UserError(f"The mask of {quoted(phrase)} has values outside 0 to 1; draw it anew.")
        if not mask.any():
            raise UserError(f"The mask of {quoted(phrase)} is empty; draw it, or leave the phrase out.")
