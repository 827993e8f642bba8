"""What in photos will spoil the learning of a thing, though it can be learned: seen before any long work starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch

from ...basics.errors import listed

_FEWEST = 3
# Photos brought to so many pixels a side are compared, and looked at for their backgrounds.
_COMPARED, _LOOKED_AT, _EDGE = 16, 64, 8
# Mean difference of nearly equal photos; two of one thing on one wall differ by 0.025 and more.
_NEARLY_EQUAL = 0.012
# Mean difference of neighbouring pixels, down and across, along the edge: a plain wall has 0.01, a street 0.1.
_BUSY = 0.06


def photo_faults(photos: Sequence[torch.Tensor], masked: bool, least_side: int) -> Iterator[str]:
    """Say what is wrong with the photos of one thing, each the second half of a sentence that begins with its name.

    Parameters
    ----------
    photos : sequence of Tensor (n, H, W, 3), 0 to 1
        Batches, each of one size.
    masked : bool
        Whether their backgrounds are left out.
    least_side : int
        Pixels along the shorter side of a photo that the model can still make something of.
    """
    single = [photo for batch in photos for photo in batch.split(1)]
    if len(single) < _FEWEST:
        number = "one photo" if len(single) == 1 else f"{len(single)} photos"
        yield f"has only {number}; take three to five, from other sides and in other places."
    small = [number for number, photo in enumerate(single, 1) if min(photo.shape[1:3]) < least_side]
    if small:
        yield (
            f"has small photos (number {listed(small)}): the model has no room for details below {least_side} pixels "
            "a side; take larger ones."
        )
    tiny = [_brought_to(photo, _COMPARED) for photo in single]
    alike = [
        f"{first} and {second}"
        for (first, one), (second, other) in combinations(enumerate(tiny, 1), 2)
        if (one - other).abs().mean() < _NEARLY_EQUAL
    ]
    if alike:
        yield f"has photos that are nearly the same (number {listed(alike)}); replace one of each two by another view."
    busy = [number for number, photo in enumerate(single, 1) if _edge_variation(photo) > _BUSY]
    if not masked and 2 * len(busy) > len(single):
        yield (
            f"has busy backgrounds (photo {listed(busy)}) and no mask, so they are learned along with it; connect a "
            "mask that is white where the thing is, or take photos before a plain wall."
        )


def _brought_to(photo: torch.Tensor, side: int) -> torch.Tensor:
    return torch.nn.functional.interpolate(photo.movedim(-1, 1), (side, side), mode="area")


def _edge_variation(photo: torch.Tensor) -> float:
    grey = _brought_to(photo, _LOOKED_AT).mean(1)[0]
    across, down = grey.diff(dim=1).abs()[1:], grey.diff(dim=0).abs()[:, 1:]
    variation = across + down
    edge = torch.ones_like(variation, dtype=torch.bool)
    edge[_EDGE:-_EDGE, _EDGE:-_EDGE] = False
    return float(variation[edge].mean())
