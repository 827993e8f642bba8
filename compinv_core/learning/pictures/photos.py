"""Checking the photos of a concept and their masks before any long work starts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...basics.errors import UserError, listed, remark

_SMALLEST_SIDE = 64
# What Load Image gives where a picture has no alpha channel.
_PLACEHOLDER = (64, 64)


def stack_photos(images: Sequence[torch.Tensor], input_name: str = "images") -> torch.Tensor:
    """Join image batches into one; refuse what cannot be learned from.

    Parameters
    ----------
    images : sequence of Tensor (b, H, W, C), float, 0 to 1
        Batches as they come from the graph; an alpha channel is dropped.
    input_name : str
        The input to be named in the sentence.

    Returns
    -------
    Tensor (n, H, W, 3), float32, CPU

    Raises
    ------
    UserError
    """
    if sum(batch.shape[0] for batch in images) == 0:
        raise UserError(f"{input_name} is empty; connect at least one picture, better three to five.")
    for batch in images:
        if batch.ndim != 4 or batch.shape[-1] not in (3, 4):
            raise UserError(
                f"{input_name} has shape {tuple(batch.shape)}; expected colour images (batch, height, width, 3)."
            )
    sizes = {f"{batch.shape[2]}x{batch.shape[1]}": batch.shape[1:3] for batch in images if batch.shape[0]}
    if len(sizes) > 1:
        raise UserError(
            f"{input_name} have different sizes ({', '.join(sizes)}); bring them to one size first, "
            "for example with Upscale Image and its centre crop."
        )
    if min(next(iter(sizes.values()))) < _SMALLEST_SIDE:
        raise UserError(f"{input_name} are {next(iter(sizes))}; each side must have at least {_SMALLEST_SIDE} pixels.")
    photos = torch.cat([batch[..., :3].detach().float().cpu() for batch in images])
    if not torch.isfinite(photos).all():
        raise UserError(f"{input_name} hold NaN or infinity; check the node that makes them.")
    return photos


def stack_masks(
    masks: Sequence[torch.Tensor], photos: torch.Tensor, numbers: Sequence[int] | None = None
) -> torch.Tensor:
    """Join the concept masks into one batch that fits the photos.

    Parameters
    ----------
    masks : sequence of Tensor (b, H, W) or (H, W), float
        1 where the concept is.
    photos : Tensor (n, H, W, 3)
    numbers : sequence of int, optional
        What to call them in sentences; by default they are counted from 1.

    Returns
    -------
    Tensor (n, H, W), float32, CPU, 0 to 1

    Raises
    ------
    UserError
        When number or size differ from the photos', or a mask is empty.
    """
    batches = _batches(masks)
    count, (height, width) = len(photos), photos.shape[1:3]
    for batch in batches:
        if tuple(batch.shape[1:]) != (height, width):
            if tuple(batch.shape[1:]) == _PLACEHOLDER and not batch.any():
                raise UserError(
                    "mask is empty: Load Image gives an empty mask of 64x64 for a picture without an alpha channel; "
                    "paint the mask in its mask editor, or disconnect `mask`."
                )
            raise UserError(
                f"mask is {batch.shape[-1]}x{batch.shape[-2]} but the images are {width}x{height}; "
                "give one mask of the same size for every image."
            )
    joined = torch.cat([batch.detach().float().cpu() for batch in batches]) if batches else torch.zeros(0)
    _check_number(len(joined), count)
    if not torch.isfinite(joined).all():
        raise UserError("mask holds NaN or infinity; check the node that makes it.")
    joined = joined.clamp(0, 1)
    called = numbers or range(1, count + 1)
    empty = [number for number, mask in zip(called, joined, strict=True) if not mask.any()]
    if empty:
        raise UserError(
            f"mask {empty[0]} is empty, so nothing of image {empty[0]} would be learned; paint the concept white (1). "
            "A picture without an alpha channel has an empty mask in Load Image."
        )
    inverted = [number for number, mask in zip(called, joined, strict=True) if _looks_inverted(mask)]
    if inverted:
        remark(
            f"mask {listed(inverted)} is white along the whole edge of the picture and black inside, as the mask of a "
            "cut-out in Load Image is: the surroundings would be learned. If so, connect Invert Mask between the two."
        )
    return joined


def single_masks(masks: Sequence[torch.Tensor], count: int) -> list[torch.Tensor]:
    """Take masks (b, H, W) or (H, W) apart into (1, H, W) each; their sizes may differ.

    Raises
    ------
    UserError
        When they are not as many as `count` images.
    """
    single = [mask for batch in _batches(masks) for mask in batch.split(1)]
    _check_number(len(single), count)
    return single


def _batches(masks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [mask[None] if mask.ndim == 2 else mask for mask in masks]


def _check_number(masks: int, images: int) -> None:
    if masks != images:
        raise UserError(f"mask has {masks} masks for {images} images; give one mask for every image.")


def _looks_inverted(mask: torch.Tensor) -> bool:
    edge = torch.cat([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return bool((edge > 0.5).all()) and bool((mask < 0.5).any())


def centre_crop(batch: torch.Tensor, multiple: int) -> torch.Tensor:
    """Crop pictures (n, H, W, ...) at the centre to a multiple of pixels, as the host's autoencoder does; a view."""
    for dimension in (1, 2):
        surplus = batch.shape[dimension] % multiple
        batch = batch.narrow(dimension, surplus // 2, batch.shape[dimension] - surplus)
    return batch


def latent_weights(masks: torch.Tensor, multiple: int) -> torch.Tensor:
    """Average masks (n, H, W) over the pixels of each latent cell, of which each side has `multiple`: (n, 1, h, w)."""
    return torch.nn.functional.avg_pool2d(masks[:, None], multiple)
