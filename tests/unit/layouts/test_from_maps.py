"""Boxes from attention maps."""

from __future__ import annotations

import pytest
import torch

from compinv_core.basics.errors import UserError
from compinv_core.boxes.geometry import largest_pairwise_iou
from compinv_core.layouts.from_maps import LEAST_AREA, MOST_BOXES, SMALLEST_SIDE, boxes_from_maps


def areas(boxes: tuple) -> list[float]:
    return [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes]


def test_even_rectangles_get_their_box() -> None:
    maps = torch.full((2, 8, 8), 1e-6)
    maps[0, 0:4, 0:4] = 1.0
    maps[1, 4:8, 3:8] = 3.0
    (one, other) = boxes_from_maps(maps)
    # An even spread over n cells has a standard deviation of √((n² − 1) / 12).
    half = 15**0.5 / 16
    assert one == pytest.approx((0.25 - half, 0.25 - half, 0.25 + half, 0.25 + half), abs=1e-3)
    half = 24**0.5 / 16
    assert other[0] == pytest.approx(0.6875 - half, abs=1e-3)
    assert other[2] == pytest.approx(0.6875 + half, abs=1e-3)


def test_a_point_gets_the_smallest_side() -> None:
    maps = torch.zeros(1, 8, 8)
    maps[0, 3, 4] = 1.0
    ((x0, y0, x1, y1),) = boxes_from_maps(maps)
    assert (x1 - x0, y1 - y0) == pytest.approx((SMALLEST_SIDE, SMALLEST_SIDE))


def test_what_others_have_more_of_does_not_count() -> None:
    ground = torch.ones(8, 8)
    one, other = ground.clone(), ground.clone()
    one[2:6, 0:2] += 4.0
    other[2:6, 6:8] += 4.0
    left, right = boxes_from_maps(torch.stack([one, other]))
    assert left[2] < 0.5 < right[0]


@pytest.mark.parametrize("count", [1, 2, 3, 5, MOST_BOXES])
def test_boxes_are_disjoint_and_large_enough_whatever_the_maps(count: int) -> None:
    for seed in range(2):
        maps = torch.rand(count, 8, 12, generator=torch.Generator().manual_seed(seed)).pow(1 + 2 * seed)
        boxes = boxes_from_maps(maps)
        assert largest_pairwise_iou(boxes) == 0
        assert min(areas(boxes)) >= LEAST_AREA
        assert boxes == boxes_from_maps(maps)
    assert largest_pairwise_iou(boxes_from_maps(torch.ones(count, 8, 8))) == 0


def test_more_things_than_fit_are_refused() -> None:
    with pytest.raises(UserError, match="room for 9 things"):
        boxes_from_maps(torch.ones(MOST_BOXES + 1, 8, 8))
