"""What is said of photos before they are learned from."""

from __future__ import annotations

import pytest
import torch

from compinv_core.learning.pictures.judging import photo_faults

PLAIN = torch.full((1, 64, 64, 3), 0.5)


def views(count: int = 3, side: int = 64) -> torch.Tensor:
    """Photos of a square before a plain wall, at another place in each."""
    photos = torch.full((count, side, side, 3), 0.5)
    for number, photo in enumerate(photos):
        start = side // 4 + number * side // 8
        photo[start : start + side // 4, side // 4 : 3 * side // 4] = 1.0
    return photos


def busy(count: int = 3) -> torch.Tensor:
    """The same before a chessboard with squares of two pixels."""
    squares = (torch.arange(64) // 2)[:, None] + torch.arange(64) // 2
    photos = views(count)
    board = (squares % 2).float()[..., None].expand(64, 64, 3)
    return torch.where(photos == 1.0, photos, board)


def test_good_photos_have_no_fault() -> None:
    assert list(photo_faults([views()], False, 64)) == []
    assert list(photo_faults([views(2), views(3, 96)[2:]], False, 64)) == []


@pytest.mark.parametrize(
    ("photos", "words"),
    [
        ([views(1)], "has only one photo;"),
        ([views(2)], "has only 2 photos;"),
        (
            [views(2), views(3, 32)[2:]],
            "has small photos (number 3): the model has no room for details below 64 pixels",
        ),
        ([torch.cat([views(), views(2) + 0.01])], "has photos that are nearly the same (number 1 and 4, 2 and 5)"),
        ([busy()], "has busy backgrounds (photo 1, 2, 3) and no mask"),
        ([busy(2), views()[2:]], "has busy backgrounds (photo 1, 2) and no mask"),
    ],
)
def test_a_fault_is_said(photos: list[torch.Tensor], words: str) -> None:
    (fault,) = photo_faults(photos, False, 64)
    assert words in fault


def test_a_mask_leaves_a_busy_background_out_and_one_busy_photo_of_three_is_no_fault() -> None:
    assert list(photo_faults([busy()], True, 64)) == []
    assert list(photo_faults([views(2), busy()[2:]], False, 64)) == []


def test_only_the_edge_counts_as_background() -> None:
    inner = views()
    inner[:, 16:48, 16:48] = busy()[:, 16:48, 16:48]
    assert list(photo_faults([inner], False, 64)) == []
