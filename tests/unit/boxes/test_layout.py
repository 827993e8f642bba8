"""Layouts, their masks, and what they are made of."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from compinv_core.basics.errors import UserError
from compinv_core.boxes.drawing import draw_layout
from compinv_core.boxes.layout import Layout, box_masks, crop_box
from compinv_core.detectors.bounding_boxes import (
    layout_from_bounding_boxes,
    layout_to_bounding_boxes,
    with_descriptions,
)


def box(x: float, y: float, width: float, height: float, **extra: object) -> dict:
    return {"x": x, "y": y, "width": width, "height": height, **extra}


def test_mask_covers_the_cells_whose_centres_lie_in_the_box() -> None:
    # Centres of the columns: 1/8, 3/8, 5/8, 7/8; of the rows: 1/4, 3/4.
    (mask,) = box_masks([(0.0, 0.0, 0.6, 0.5)], height=2, width=4)
    assert mask.tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert mask.dtype == torch.float32


def test_boxes_are_half_open() -> None:
    # The centre 3/8 is on the right edge of the first box and on the left edge of the second.
    masks = box_masks([(0.0, 0.0, 0.375, 1.0), (0.375, 0.0, 1.0, 1.0)], height=1, width=4)
    assert masks[0].tolist() == [[1, 0, 0, 0]]
    assert masks[1].tolist() == [[0, 1, 1, 1]]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 12), (7, 5), (1, 1), (64, 64)])
def test_boxes_that_tile_the_picture_give_masks_that_tile_the_map(height: int, width: int) -> None:
    cuts = [0.0, 0.21, 0.5, 0.83, 1.0]
    tiles = [(x0, y0, x1, y1) for x0, x1 in pairwise(cuts) for y0, y1 in ((0.0, 0.4), (0.4, 1.0))]
    covered = box_masks(tiles, height, width).sum(0)
    if height > 1 and width > 3:
        assert torch.equal(covered, torch.ones(height, width))
    assert covered.min() >= 1


@pytest.mark.parametrize("corner", [(0.0, 0.0), (0.49, 0.49), (0.51, 0.26), (0.995, 0.995)])
def test_no_mask_is_empty(corner: tuple[float, float]) -> None:
    x, y = corner
    (mask,) = box_masks([(x, y, x + 0.004, y + 0.004)], height=8, width=8)
    assert mask.sum() == 1
    assert mask[int((y + 0.002) * 8), int((x + 0.002) * 8)] == 1


def test_truncated_edges_are_those_of_the_released_code() -> None:
    # 8 times .1, .2, .5 and .8 is .8, 1.6, 4 and 6.4: columns 0 to 3, rows 1 to 5. By their centres: 1 to 3, 2 to 5.
    (mask,) = box_masks([(0.1, 0.2, 0.5, 0.8)], 8, 8, truncate=True)
    expected = torch.zeros(8, 8)
    expected[1:6, 0:4] = 1.0
    assert torch.equal(mask, expected)
    (centred,) = box_masks([(0.1, 0.2, 0.5, 0.8)], 8, 8)
    assert centred.sum() == 3 * 4
    on_the_grid = [(0.25, 0.0, 0.75, 1.0)]
    assert torch.equal(box_masks(on_the_grid, 8, 8, truncate=True), box_masks(on_the_grid, 8, 8))
    # Within one column nothing is left.
    assert box_masks([(0.3, 0.0, 0.35, 1.0)], 8, 8, truncate=True).sum() == 0


def test_crop_expresses_a_box_in_the_part() -> None:
    assert crop_box((0.25, 0.5, 0.75, 1.0), (0.5, 0.0, 1.0, 1.0)) == (0.0, 0.5, 0.5, 1.0)
    assert crop_box((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)) is None


@pytest.mark.parametrize(
    ("phrases", "boxes", "part"),
    [
        (("a cat",), (), "1 phrases and 0 boxes"),
        (("a cat", "A  cat"), ((0, 0, 1, 1), (0, 0, 1, 1)), "twice"),
        ((" ",), ((0, 0, 1, 1),), "empty"),
        (("a cat",), ((0.5, 0, 0.5, 1),), '"a cat"'),
        (("a cat",), ((0, 0, 1.2, 1),), '"a cat"'),
        (("a cat",), ((0, 0, float("nan"), 1),), "finite"),
    ],
)
def test_layout_refuses(phrases: tuple, boxes: tuple, part: str) -> None:
    with pytest.raises(UserError, match=part):
        Layout(phrases, boxes, 512, 512)


def test_boxes_without_labels_pair_up_in_order() -> None:
    frame = [[box(0, 0, 64, 128), box(96, 32, 32, 64)]]
    layout = layout_from_bounding_boxes(frame, ("a cat", "a ball"), 128, 128)
    assert layout == Layout(("a cat", "a ball"), ((0, 0, 0.5, 1), (0.75, 0.25, 1, 0.75)), 128, 128)


def test_pictures_need_not_be_square() -> None:
    layout = layout_from_bounding_boxes([box(96, 32, 96, 64)], ("a cat",), 192, 128)
    assert layout.boxes == ((0.5, 0.25, 1.0, 0.75),)


def test_boxes_with_labels_find_their_phrases() -> None:
    frame = [
        box(0, 0, 10, 10, label="Ball", score=0.6),
        box(20, 0, 10, 10, label="cat", score=0.7),
        box(40, 0, 10, 10, label="ball", score=0.9),
        box(60, 0, 10, 10, label="person", score=0.99),
    ]
    layout = layout_from_bounding_boxes([frame], ("embedding:my-cat cat", "a ball"), 100, 100)
    assert [b[0] for b in layout.boxes] == [0.2, 0.4]


def test_boxes_of_the_hosts_rt_detr_find_their_phrases() -> None:
    # As RTDETR_detect writes them: by score, in fractions of a pixel, sometimes over the edge, without metadata.
    frame = [
        {"x": 140.6, "y": 85.1, "width": 131.8, "height": 97.5, "label": "person", "score": 0.95},
        {"x": 100.25, "y": 50.5, "width": 25.5, "height": 25.25, "label": "sports ball", "score": 0.9},
        {"x": -0.75, "y": 20.5, "width": 51.0, "height": 60.75, "label": "cat", "score": 0.75},
        {"x": 10.0, "y": 10.0, "width": 20.0, "height": 20.0, "label": "cat", "score": 0.5},
        {"x": 150.5, "y": 0.0, "width": 10.0, "height": 25.0, "label": "traffic light", "score": 0.5},
    ]
    phrases = ("embedding:my-cat cat", "a ball", "two traffic-lights")
    layout = layout_from_bounding_boxes([frame], phrases, 200, 100)
    assert layout.phrases == phrases
    assert layout.boxes[0] == pytest.approx((0.0, 0.205, 0.25125, 0.8125))
    assert layout.boxes[1] == pytest.approx((0.50125, 0.505, 0.62875, 0.7575))
    assert layout.boxes[2] == pytest.approx((0.7525, 0.0, 0.8025, 0.25))


@pytest.mark.parametrize("label", ["traffic_light", "Traffic Lights", "traffic-light", "light"])
def test_labels_are_compared_as_those_of_detectors(label: str) -> None:
    layout = layout_from_bounding_boxes([box(0, 0, 10, 10, label=label)], ("a traffic light",), 100, 100)
    assert len(layout) == 1


@pytest.mark.parametrize("shape", ["{},", "{}.", "{}!", '"{}"', "“{}”", "({})", "({}:1.2)", "{}’s"])
def test_punctuation_beside_phrases_and_labels_does_not_count(shape: str) -> None:
    frame = [box(0, 0, 10, 10, label="ball"), box(20, 0, 10, 10, label=shape.format("Cat"))]
    for phrases in (("a cat", "a ball"), (shape.format("a cat"), shape.format("a ball"))):
        assert [b[0] for b in layout_from_bounding_boxes([frame], phrases, 100, 100).boxes] == [0.2, 0.0]
    learned = layout_from_bounding_boxes(
        [box(0, 0, 9, 9, label="my-cat cat")], (shape.format("embedding:my-cat cat"),), 99, 99
    )
    assert len(learned) == 1


def test_a_phrase_prefers_the_label_with_its_own_punctuation() -> None:
    frame = [box(0, 0, 10, 10, label="a cat", score=0.9), box(20, 0, 10, 10, label="a cat,", score=0.1)]
    layout = layout_from_bounding_boxes([frame], ("a cat,", "a cat"), 100, 100)
    assert [b[0] for b in layout.boxes] == [0.2, 0.0]


def test_of_two_phrases_with_one_noun_each_gets_a_box() -> None:
    frame = [box(0, 0, 10, 10, label="cat", score=0.1), box(20, 0, 10, 10, label="cat", score=0.9)]
    layout = layout_from_bounding_boxes([frame], ("my-cat cat", "a cat"), 100, 100)
    assert [b[0] for b in layout.boxes] == [0.0, 0.2]


def test_a_phrase_prefers_the_label_with_its_own_words() -> None:
    frame = [box(0, 0, 10, 10, label="cat", score=0.9), box(20, 0, 10, 10, label="my-cat cat", score=0.1)]
    layout = layout_from_bounding_boxes([frame], ("a cat", "my-cat cat"), 100, 100)
    assert [b[0] for b in layout.boxes] == [0.0, 0.2]


@pytest.mark.parametrize("bboxes", [None, [], [[]]])
def test_no_box_gives_an_empty_layout(bboxes: list | None) -> None:
    assert len(layout_from_bounding_boxes(bboxes, ("a cat",), 128, 128)) == 0


def test_rounding_of_a_canvas_is_forgiven() -> None:
    layout = layout_from_bounding_boxes([box(-1, 64, 65, 65)], ("a cat",), 128, 128)
    assert layout.boxes == ((0.0, 0.5, 0.5, 1.0),)


@pytest.mark.parametrize(
    ("bboxes", "phrases", "part"),
    [
        ([box(100, 0, 64, 64)], ("a cat",), "outside the 128×128 picture"),
        ([box(300, 300, 64, 64)], ("a cat",), "outside the 128×128 picture"),
        ([box(0, 0, 0, 64)], ("a cat",), "empty"),
        ([box(0, 0, float("nan"), 64)], ("a cat",), "finite"),
        ([{"x": 0, "y": 0}], ("a cat",), "lacks one of the finite numbers x, y, width and height"),
        ([box(0, 0, 64, 64)], ("a cat", "a ball"), r"1 box without a label and 2 phrases that .* \(a cat, a ball\)"),
        ([box(0, 0, 64, 64), box(0, 0, 9, 9, label="cat")], ("a cat",), "1 box without a label and 0 phrases"),
        ([box(0, 0, 64, 64, label="dog")], ("a cat",), 'phrase "a cat" has no box'),
        ([box(0, 0, 64, 64, label="cat", score="high")], ("a cat",), 'score "high"'),
        ([box(0, 0, 64, 64)] * 2, ("a cat", "a cat"), "twice"),
        ("boxes", ("a cat",), "connect a BOUNDING_BOX output"),
    ],
)
def test_bad_boxes_get_one_sentence(bboxes: object, phrases: tuple, part: str) -> None:
    with pytest.raises(UserError, match=part) as caught:
        layout_from_bounding_boxes(bboxes, phrases, 128, 128)
    message = str(caught.value)
    assert message.endswith(".")
    assert ". " not in message and ("; " in message or "twice" in message)


def test_a_layout_goes_over_the_canvas_and_comes_back_by_label() -> None:
    layout = Layout(("a cat", "a ball"), ((0.0, 0.25, 0.5, 1.0), (0.625, 0.5, 0.875, 0.75)), 128, 64)
    (frame,) = layout_to_bounding_boxes(layout)
    assert frame[1] == {
        "x": 80, "y": 32, "width": 32, "height": 16, "label": "a ball", "score": 1.0,
        "metadata": {"type": "obj", "desc": "a ball"},
    }  # fmt: skip
    # The canvas keeps the description and hands out plain boxes with a list of elements; here in another order.
    plain = [[{key: b[key] for key in ("x", "y", "width", "height")} for b in frame[::-1]]]
    elements = [{"type": "obj", "bbox": [0, 0, 1, 1], "desc": b["metadata"]["desc"]} for b in frame[::-1]]
    assert layout_from_bounding_boxes(with_descriptions(plain, elements), layout.phrases, 128, 64) == layout
    assert with_descriptions(plain, None) is plain


def test_boxes_without_descriptions_take_the_phrases_that_are_left() -> None:
    plain = [[box(0, 0, 32, 64), box(32, 0, 32, 64), box(64, 0, 32, 64), box(96, 0, 32, 64)]]
    elements = [{"desc": "a ball"}, {"desc": ""}, {"desc": "the sky"}, {"desc": ""}]
    phrases = ("a cat", "a ball", "a tree")
    layout = layout_from_bounding_boxes(with_descriptions(plain, elements), phrases, 128, 128)
    assert [b[0] for b in layout.boxes] == [0.25, 0.0, 0.75]


@pytest.mark.parametrize(("elements", "part"), [([{"desc": "a"}], "2 boxes and 1 element;"), (["a", "b"], "elements")])
def test_elements_of_another_canvas_get_a_sentence(elements: list, part: str) -> None:
    with pytest.raises(UserError, match=part):
        with_descriptions([[box(0, 0, 64, 64)] * 2], elements)


@pytest.mark.parametrize(("width", "height"), [(0, 64), (64, -1), (2**31, 64), (64, 10**400)])
def test_sizes_that_no_picture_has_get_a_sentence(width: int, height: int) -> None:
    with pytest.raises(UserError, match="width and height must be at least 1 and at most 16384"):
        Layout(("a cat",), ((0, 0, 1, 1),), width, height)
    with pytest.raises(UserError, match="width and height must be"):
        layout_from_bounding_boxes([{"x": 0, "y": 0, "width": 1, "height": 1}], ["a cat"], width, height)


@pytest.mark.parametrize("box", [(0.5, 0.5, 0.5001, 0.5001), (0.0, 0.0, 1.0, 1.0)])
def test_a_box_smaller_than_a_pixel_is_drawn(box: tuple[float, float, float, float]) -> None:
    for width, height in ((512, 512), (16384, 16)):
        assert draw_layout(Layout(("a cat",), (box,), width, height)).isfinite().all()
