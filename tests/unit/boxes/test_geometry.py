"""Overlaps and losses of boxes against values worked out by hand, and layouts without overlap."""

from __future__ import annotations

import itertools

import pytest
import torch

from compinv_core.boxes.geometry import (
    SMALLEST_SIDE,
    box_iou,
    box_loss,
    centres_to_corners,
    corners_to_centres,
    generalized_iou,
    inside_picture,
    largest_pairwise_iou,
    mirrored,
    separate,
    side_by_side,
)


def corners(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_forms_of_a_box() -> None:
    assert centres_to_corners(corners(0.5, 0.4, 0.2, 0.6)).tolist() == pytest.approx([0.4, 0.1, 0.6, 0.7])
    assert corners_to_centres(corners(0.4, 0.1, 0.6, 0.7)).tolist() == pytest.approx([0.5, 0.4, 0.2, 0.6])
    assert mirrored(corners(0.1, 0.2, 0.4, 0.9)).tolist() == pytest.approx([0.6, 0.2, 0.9, 0.9])


def test_overlap_by_hand() -> None:
    # Two unit squares, shifted by half a side: 1/2 shared, 3/2 covered, enclosed by 3/2 × 1.
    first, second = corners(0, 0, 1, 1), corners(0.5, 0, 1.5, 1)
    assert box_iou(first, second).item() == pytest.approx(1 / 3)
    assert generalized_iou(first, second).item() == pytest.approx(1 / 3)
    # Two unit squares, one side apart: nothing shared, a third of the enclosing box is empty.
    far = corners(2, 0, 3, 1)
    assert box_iou(first, far).item() == 0
    assert generalized_iou(first, far).item() == pytest.approx(-1 / 3)
    assert generalized_iou(first, first).item() == pytest.approx(1)


def test_loss_by_hand() -> None:
    # Centres differ by 0.5 in x, beyond beta = 0.1: 0.5 - 0.05; GIoU is 1/3 as above.
    first, second = corners(0.5, 0.5, 1, 1), corners(1.0, 0.5, 1, 1)
    assert box_loss(first, second).item() == pytest.approx(0.45 + 1 - 1 / 3)
    assert box_loss(first, first).item() == pytest.approx(0)


def test_loss_has_the_right_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(6, 4, generator=generator, dtype=torch.float64) * 0.4 + 0.3
    predicted = (torch.rand(6, 4, generator=generator, dtype=torch.float64) * 0.4 + 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda boxes: box_loss(boxes, target), (predicted,))


def test_boxes_that_do_not_meet_are_drawn_together() -> None:
    predicted = corners(0.2, 0.5, 0.1, 0.1).requires_grad_()
    (gradient,) = torch.autograd.grad(
        -generalized_iou(centres_to_corners(predicted), corners(0.7, 0.4, 0.9, 0.6)), predicted
    )
    assert gradient[0] < 0


def test_inside_the_picture_and_never_too_small() -> None:
    boxes = inside_picture(torch.tensor([[-0.2, 0.5, 0.3, 1.4], [0.99, 0.5, 1.2, 0.5001], [1.1, 0.2, 1.2, 0.4]]))
    assert boxes.min() >= 0 and boxes.max() <= 1
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= SMALLEST_SIDE - 1e-6
    assert boxes[0].tolist() == pytest.approx([0, 0.5, 0.3, 1])


@pytest.mark.parametrize("count", [2, 3, 5])
def test_side_by_side_fills_a_row(count: int) -> None:
    boxes = side_by_side(count)
    assert largest_pairwise_iou(boxes) == 0
    assert all(0 <= x0 < x1 <= 1 and y0 == 0.2 and y1 == 0.8 for x0, y0, x1, y1 in boxes)
    assert [box[0] for box in boxes] == sorted(box[0] for box in boxes)


def test_boxes_without_overlap_stay() -> None:
    boxes = torch.tensor([[0.0, 0.0, 0.4, 0.5], [0.5, 0.0, 1.0, 0.5], [0.0, 0.6, 1.0, 1.0]])
    assert torch.equal(separate(boxes), boxes)


@pytest.mark.parametrize(
    "boxes",
    [
        [[0.3, 0.3, 0.7, 0.7]] * 3,
        [[0.0, 0.0, 1.0, 1.0]] * 4,
        [[0.05, 0.3, 0.48, 0.8], [0.28, 0.3, 0.72, 0.8], [0.52, 0.3, 0.95, 0.8]],
        [[0.4, 0.4, 0.6, 0.6], [0.1, 0.1, 0.9, 0.9], [0.4, 0.4, 0.6, 0.6], [0.0, 0.0, 0.5, 0.5], [0.4, 0.5, 0.9, 0.9]],
    ],
    ids=["the same three times", "whole pictures", "a crowded row", "nested"],
)
def test_overlap_is_resolved_inside_the_picture(boxes: list) -> None:
    apart = separate(torch.tensor(boxes))
    assert apart.min() >= 0 and apart.max() <= 1
    assert all(float(box_iou(a, b)) <= 0.1 for a, b in itertools.combinations(apart, 2))
    assert (apart[:, 2:] - apart[:, :2]).min() > 0.05


def test_a_small_overlap_moves_boxes_along_the_shorter_way() -> None:
    apart = separate(torch.tensor([[0.1, 0.3, 0.5, 0.7], [0.4, 0.35, 0.8, 0.75], [0.0, 0.9, 0.1, 1.0]]))
    assert apart[:2, 1].tolist() == pytest.approx([0.3, 0.35])
    assert apart[0, 2] <= apart[1, 0]
    assert (apart[:, 2] - apart[:, 0]).tolist() == pytest.approx([0.4, 0.4, 0.1])
