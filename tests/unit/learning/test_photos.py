"""Photos and masks: what is refused, and how masks come to latent resolution."""

from __future__ import annotations

import pytest
import torch

from compinv_core.basics.errors import UserError
from compinv_core.learning.pictures.photos import centre_crop, latent_weights, stack_masks, stack_photos


def test_batches_are_joined_and_alpha_is_dropped() -> None:
    first, second = torch.rand(2, 64, 72, 3), torch.rand(1, 64, 72, 4)
    photos = stack_photos([first, second])
    assert photos.shape == (3, 64, 72, 3)
    assert torch.equal(photos, torch.cat([first, second[..., :3]]))


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ([], "empty"),
        ([torch.zeros(0, 64, 64, 3)], "empty"),
        ([torch.rand(1, 64, 64, 3), torch.rand(1, 64, 80, 3)], "different sizes .64x64, 80x64"),
        ([torch.rand(1, 64, 64, 1)], "colour images"),
        ([torch.rand(1, 32, 64, 3)], "at least 64"),
        ([torch.full((1, 64, 64, 3), float("nan"))], "NaN"),
    ],
)
def test_bad_photos_get_a_sentence(images: list[torch.Tensor], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        stack_photos(images)


PHOTOS = torch.rand(2, 64, 72, 3)


def test_masks_are_joined_and_clamped() -> None:
    masks = stack_masks([torch.full((64, 72), 2.0), torch.full((1, 64, 72), 0.5)], PHOTOS)
    assert masks.shape == (2, 64, 72)
    assert masks[0].unique().tolist() == [1.0] and masks[1].unique().tolist() == [0.5]


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (torch.ones(2, 64, 64), "64x64 but the images are 72x64"),
        (torch.ones(1, 64, 72), "1 masks for 2 images"),
        (torch.stack([torch.ones(64, 72), torch.zeros(64, 72)]), "mask 2 is empty"),
        (torch.full((2, 64, 72), float("nan")), "NaN"),
    ],
)
def test_bad_masks_get_a_sentence(mask: torch.Tensor, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        stack_masks([mask], PHOTOS)


def test_crop_is_centred() -> None:
    batch = torch.arange(13.0).reshape(1, 1, 13).expand(1, 9, 13)
    cropped = centre_crop(batch, 8)
    # 13 = 2 + 8 + 3 columns
    assert cropped.shape == (1, 8, 8) and cropped[0, 0].tolist() == [2.0, 3, 4, 5, 6, 7, 8, 9]


def test_latent_weights_are_the_covered_share_of_each_cell() -> None:
    mask = torch.zeros(1, 8, 16)
    mask[:, :, :4] = 1
    assert latent_weights(mask, 8).tolist() == [[[[0.5, 0.0]]]]
