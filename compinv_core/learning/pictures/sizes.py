"""Bringing photos of any size to sizes that a model was trained on, whole and in their own proportions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

# Sides of the pictures that models for several sizes were trained on.
_STEP = 64

Frame = tuple[int, int, int, int]
"""Height and width of the picture that another one was cut from, and the top left corner of the cut."""


@dataclass(frozen=True)
class Fit:
    """How a photo is fitted.

    Attributes
    ----------
    height, width : int
        Pixels of what comes out.
    scaled : tuple of int
        Height and width of the whole photo before its edges are cut off evenly.
    frame : Frame
        As a model is told it: the size that the photo had, and the corner in the scaled one.
    """

    height: int
    width: int
    scaled: tuple[int, int]
    frame: Frame


def fit_for(height: int, width: int, most_pixels: int, cell: int) -> Fit:
    """Say how a photo is fitted into so many pixels.

    A photo with more is scaled down until it just covers a size of about as many pixels and its own proportions, whose
    sides are multiples of 64, so that less than 64 pixels are cut off in all. One with fewer is never scaled up; of it
    less than a cell is cut off each side.

    Parameters
    ----------
    most_pixels : int
        Of the result; 64 x 64 or more.
    cell : int
        Pixels along the side of a latent cell.
    """
    if height * width <= most_pixels:
        whole = (height - height % cell, width - width % cell)
        return Fit(*whole, (height, width), _frame((height, width), (height, width), whole))
    shrunk = math.sqrt(most_pixels / (height * width))
    wanted = (height * shrunk, width * shrunk)
    sides = [max(_STEP, int(side / _STEP + 0.5) * _STEP) for side in wanted]
    while sides[0] * sides[1] > most_pixels:
        # The side that was rounded up more takes the step back, and never to nothing.
        over = [sides[i] - side if sides[i] > _STEP else -math.inf for i, side in enumerate(wanted)]
        sides[over.index(max(over))] -= _STEP
    scale = max(sides[0] / height, sides[1] / width)
    scaled = (max(sides[0], round(height * scale)), max(sides[1], round(width * scale)))
    return Fit(sides[0], sides[1], scaled, _frame((height, width), scaled, (sides[0], sides[1])))


def fitted(pictures: torch.Tensor, fit: Fit) -> torch.Tensor:
    """Scale and cut pictures (n, H, W, C), or masks (n, H, W), of one size."""
    channels = pictures.ndim == 4
    planes = pictures.movedim(-1, 1) if channels else pictures[:, None]
    if fit.scaled != tuple(planes.shape[2:]):
        planes = F.interpolate(planes, fit.scaled, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
    _, _, top, left = fit.frame
    planes = planes[..., top : top + fit.height, left : left + fit.width]
    return planes.movedim(1, -1).contiguous() if channels else planes[:, 0].contiguous()


def by_size(batches: Sequence[torch.Tensor]) -> dict[tuple[int, int], list[tuple[int, torch.Tensor]]]:
    """Take batches (b, H, W, ...) apart, and put pictures (1, H, W, ...) of one size together with their number."""
    groups: dict[tuple[int, int], list[tuple[int, torch.Tensor]]] = {}
    for number, picture in enumerate(picture for batch in batches for picture in batch.split(1)):
        groups.setdefault((picture.shape[1], picture.shape[2]), []).append((number, picture))
    return groups


def _frame(original: tuple[int, int], scaled: tuple[int, int], cut: tuple[int, int]) -> Frame:
    return (*original, (scaled[0] - cut[0]) // 2, (scaled[1] - cut[1]) // 2)
