"""Soft masks as places, beside boxes."""

from __future__ import annotations

import pickle

import pytest
import torch

from compinv_core.basics.errors import UserError
from compinv_core.boxes.drawing import draw_layout
from compinv_core.boxes.layout import Layout, box_masks
from compinv_core.boxes.places import bounding_box, crop_place, layout_from_masks, place_masks

LEFT = (0.0, 0.0, 0.5, 1.0)
SLOPE = torch.tensor([[0.0, 0.5, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])


def test_boxes_are_rasterised_as_ever() -> None:
    assert torch.equal(place_masks([LEFT], 3, 4), box_masks([LEFT], 3, 4))
    assert place_masks([], 3, 4).shape == (0, 3, 4)


def test_masks_are_averaged_over_cells_and_reach_one() -> None:
    box, mask = place_masks([LEFT, SLOPE], 1, 2)
    assert box.tolist() == [[1, 0]]
    # Means of the halves: 1/8 and 2/8.
    assert mask.tolist() == [[0.5, 1]]


def test_a_dot_is_not_lost_at_any_resolution() -> None:
    dot = torch.zeros(64, 64)
    dot[40, 9] = 0.01
    for size in (4, 8, 48, 64, 96):
        assert place_masks([dot], size, size).max() == 1


def test_masks_are_cropped_like_boxes() -> None:
    assert torch.equal(crop_place(SLOPE, (0.5, 0.0, 1.0, 0.5)), torch.tensor([[1.0, 0.0]]))
    assert crop_place(SLOPE, (0.0, 0.5, 1.0, 1.0)) is None
    # The faint rim of a mask is not the thing.
    assert crop_place(torch.tensor([[1.0, 0.4, 0.0, 0.0]]), (0.25, 0.0, 1.0, 1.0)) is None
    assert crop_place(LEFT, (0.25, 0.0, 0.75, 1.0)) == (0.0, 0.0, 0.5, 1.0)
    # A part narrower than a pixel of the mask still has one.
    assert crop_place(SLOPE, (0.5, 0.0, 0.51, 0.1)).shape == (1, 1)


def test_the_box_around_a_mask() -> None:
    assert bounding_box(SLOPE) == (0.25, 0.0, 0.75, 0.5)
    assert bounding_box(LEFT) is LEFT


def test_a_layout_of_masks() -> None:
    masks = torch.stack([SLOPE, 1 - SLOPE])
    layout = layout_from_masks(masks, ("a cat", "a ball"))
    assert (layout.width, layout.height) == (4, 2)
    assert layout.boxes == ((0.25, 0.0, 0.75, 0.5), (0.0, 0.0, 1.0, 1.0))
    assert torch.equal(torch.stack(layout.places), masks)
    assert layout == layout_from_masks(masks, ("a cat", "a ball"))
    assert layout != layout_from_masks(masks.flip(0), ("a cat", "a ball"))
    assert pickle.loads(pickle.dumps(layout)) == layout


def test_layouts_of_before_have_boxes() -> None:
    old = object.__new__(Layout)
    old.__dict__.update(phrases=("a cat",), boxes=(LEFT,), width=8, height=8)
    assert old.places == (LEFT,)
    assert old == Layout(("a cat",), (LEFT,), 8, 8)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (torch.stack([SLOPE]), "give one mask per phrase"),
        (torch.stack([SLOPE] * 3), "give one mask per phrase"),
        (torch.stack([SLOPE, SLOPE * 0]), 'The mask of "a ball" is empty'),
        (torch.stack([SLOPE * 2, SLOPE]), 'The mask of "a cat" has values outside 0 to 1'),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        layout_from_masks(masks, ("a cat", "a ball"))


def test_masks_are_drawn_under_their_boxes() -> None:
    soft = draw_layout(Layout(("a cat",), (LEFT,), 64, 64, torch.ones(1, 8, 8)))
    hard = draw_layout(Layout(("a cat",), (LEFT,), 64, 64))
    assert (soft != hard).any(-1)[0, :, 300:].all()


def test_one_mask_without_a_batch_is_taken() -> None:
    assert layout_from_masks(torch.ones(4, 8), ("a cat",)).boxes == ((0.0, 0.0, 1.0, 1.0),)


@pytest.mark.parametrize("masks", [torch.ones(4), torch.ones(0, 4, 4), torch.full((1, 4, 4), torch.nan)])
def test_what_is_no_mask_gets_a_sentence(masks: torch.Tensor) -> None:
    with pytest.raises(UserError, match="connect one mask for each phrase"):
        layout_from_masks(masks, ("a cat",))
