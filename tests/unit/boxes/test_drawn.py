"""Boxes that a person drew on a node."""

from __future__ import annotations

import json

import pytest

from compinv_core.basics.errors import UserError
from compinv_core.boxes.drawn import as_drawn, read_drawn, with_drawn
from compinv_core.boxes.layout import Layout
from compinv_core.detectors.bounding_boxes import layout_from_bounding_boxes

CAT = {"phrase": "a cat", "x0": 0, "y0": 0.25, "x1": 0.5, "y1": 1}


def drawn(*boxes: dict) -> str:
    return json.dumps(boxes)


def test_boxes_are_read_by_phrase() -> None:
    ball = {"phrase": "A  Ball", "x0": 0.5, "y0": 0.125, "x1": 0.75, "y1": 0.5}
    assert read_drawn(drawn(CAT, ball), ["a ball", "a cat", "a moon"], "Node") == {
        "a cat": (0, 0.25, 0.5, 1),
        "a ball": (0.5, 0.125, 0.75, 0.5),
    }


@pytest.mark.parametrize("text", ["", " \n", "[]"])
def test_nothing_drawn(text: str) -> None:
    assert read_drawn(text, ["a cat"], "Node") == {}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("7", "has to be a list of boxes"),
        ('{"phrase": "a cat"}', "has to be a list of boxes"),
        (drawn({key: CAT[key] for key in ("phrase", "x0", "y0", "x1")}), "each with phrase, x0, y0, x1 and y1"),
        (drawn(CAT | {"x0": "0"}), "a corner that is no number"),
        (drawn(CAT | {"x0": True}), "a corner that is no number"),
        (drawn(CAT | {"x0": None}), "a corner that is no number"),
        (drawn(CAT | {"x1": float("nan")}), "four finite numbers"),
        (drawn(CAT | {"x1": 1.5}), "move it inside"),
        (drawn(CAT | {"y0": -0.25}), "move it inside"),
        (drawn(CAT | {"x1": 0}), "draw it larger"),
        (drawn(CAT | {"phrase": "a dog"}), '"a dog" in `boxes` belongs to none of the `phrases`, which are "a cat"'),
        (drawn(CAT, CAT | {"phrase": "A CAT"}), '"a cat" has two boxes'),
    ],
)
def test_what_cannot_be_read_gets_a_sentence(text: str, part: str) -> None:
    with pytest.raises(UserError) as caught:
        read_drawn(text, ["a cat"], "Node")
    assert part in str(caught.value)


def test_a_layout_is_written_as_it_is_read() -> None:
    layout = Layout(("a cat", "a ball"), ((0.0, 0.25, 0.5, 1.0), (0.1, 0.2, 0.3, 0.4)), 64, 64)
    text = json.dumps(as_drawn(layout))
    assert read_drawn(text, layout.phrases, "Node") == dict(zip(layout.phrases, layout.boxes, strict=True))


def test_drawn_boxes_take_the_place_of_predicted_ones() -> None:
    layout = Layout(("a cat", "a ball"), ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)), 64, 64)
    assert with_drawn(layout, {"a ball": (0.6, 0.1, 0.9, 0.4)}).boxes == ((0.0, 0.0, 0.5, 1.0), (0.6, 0.1, 0.9, 0.4))
    assert with_drawn(layout, {}) == layout


def box(x: int, **more: object) -> dict:
    """A box of 10×20 pixels; in a picture of 100×100 it is (x/100, 0, (x + 10)/100, .2)."""
    return {"x": x, "y": 0, "width": 10, "height": 20, **more}


OWN = (0.5, 0.5, 1.0, 1.0)


@pytest.mark.parametrize(
    ("incoming", "drawn", "expected"),
    [
        # Without any box nothing is guided, as before.
        (None, {}, ()),
        ([], {}, ()),
        # A drawn box wins over an incoming one of its phrase; the other phrase keeps its own.
        ([box(0, label="cat"), box(50, label="ball")], {"a cat": OWN}, (OWN, (0.5, 0.0, 0.6, 0.2))),
        ([box(0), box(50)], {"a cat": OWN}, (OWN, (0.5, 0.0, 0.6, 0.2))),
        # A phrase that was drawn needs no box in what comes in, labelled or not.
        ([box(50, label="ball")], {"a cat": OWN}, (OWN, (0.5, 0.0, 0.6, 0.2))),
        ([box(50)], {"a cat": OWN}, (OWN, (0.5, 0.0, 0.6, 0.2))),
        # Where all are drawn, what comes in has nothing to say, not even what is wrong with it.
        (None, {"a cat": OWN, "a ball": (0.0, 0.0, 0.5, 0.5)}, (OWN, (0.0, 0.0, 0.5, 0.5))),
        ([box(7), box(8), box(9)], {"a cat": OWN, "a ball": (0.0, 0.0, 0.5, 0.5)}, (OWN, (0.0, 0.0, 0.5, 0.5))),
        ([box(-90)], {"a cat": OWN, "a ball": (0.0, 0.0, 0.5, 0.5)}, (OWN, (0.0, 0.0, 0.5, 0.5))),
    ],
)
def test_drawn_boxes_beside_incoming_ones(incoming: list | None, drawn: dict, expected: tuple) -> None:
    assert layout_from_bounding_boxes(incoming, ["a cat", "a ball"], 100, 100, drawn).boxes == expected


@pytest.mark.parametrize(
    ("incoming", "part"),
    [
        (None, 'The phrase "a ball" has no box; draw one on the node, or connect `bboxes`.'),
        ([box(0, label="dog")], 'The phrase "a ball" has no box: the labels in `bboxes` are "dog"'),
        ([box(0), box(10), box(20)], "got 3 boxes without a label and 1 phrase"),
    ],
)
def test_a_phrase_with_neither_is_named(incoming: list | None, part: str) -> None:
    with pytest.raises(UserError) as caught:
        layout_from_bounding_boxes(incoming, ["a cat", "a ball"], 100, 100, {"a cat": OWN})
    assert part in str(caught.value)
