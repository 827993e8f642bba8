"""Detections: nouns that a detector knows, and the host's BOUNDING_BOX there and back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
from torch import Tensor

from compinv_core.basics.errors import UserError
from compinv_core.detectors.bounding_boxes import detections_to_bounding_boxes, layout_from_bounding_boxes
from compinv_core.detectors.detections import Detection, Detector, require_labels, sorted_detections


@dataclass(frozen=True)
class Known:
    """A detector of given labels that finds nothing."""

    labels: tuple[str, ...]
    name: str = "toy"
    threshold: float = 0.8

    def detect(self, images: Tensor) -> list[tuple[Detection, ...]]:
        return [() for _ in images]


def test_a_detector_without_the_vocabulary_gets_a_sentence() -> None:
    detector: Detector = Known(tuple(f"thing {i}" for i in range(12)))
    with pytest.raises(UserError, match=r"toy finds none of the nouns \(cat, boat\).*and 4 more; choose a vocabulary"):
        require_labels(["cat", "boat"], detector)
    assert require_labels(["cat", "boat"], Known(("boat", "car"))) == {"boat": "boat"}


def test_detections_are_clipped_and_sorted() -> None:
    found = sorted_detections(
        [
            ("cat", 0.5, (-0.1, 0.2, 0.5, 1.5)),
            ("dog", 0.9, (0.1, 0.1, 0.2, 0.2)),
            ("outside", 0.9, (1.1, 0.1, 1.2, 0.2)),
            ("empty", 0.9, (0.3, 0.1, 0.3, 0.2)),
            ("nan", math.nan, (0.3, 0.1, 0.4, 0.2)),
        ]
    )
    assert found == (Detection("dog", 0.9, (0.1, 0.1, 0.2, 0.2)), Detection("cat", 0.5, (0.0, 0.2, 0.5, 1.0)))


def test_boxes_go_to_the_host_and_back() -> None:
    detections = [(Detection("cat", 0.75, (0.25, 0.5, 0.75, 1.0)),), ()]
    boxes = detections_to_bounding_boxes(detections, width=200, height=100)
    box = {"x": 50, "y": 50, "width": 100, "height": 50, "label": "cat", "score": 0.75}
    assert boxes == [[{**box, "metadata": {"type": "obj", "desc": "cat"}}], []]
    assert layout_from_bounding_boxes(boxes, ["a cat"], width=200, height=100).boxes == (detections[0][0].box,)


def test_boxes_are_whole_pixels_inside_the_picture() -> None:
    found = (Detection("cat", 0.9, (0.2501, 0.4999, 0.7502, 0.9996)), Detection("dot", 0.8, (0.999, 0.9999, 1.0, 1.0)))
    jittered = tuple(replace(thing, box=tuple(x - 1e-5 for x in thing.box)) for thing in found)
    (boxes,) = detections_to_bounding_boxes([found], width=200, height=100)
    numbers = [[box[key] for key in ("x", "y", "width", "height")] for box in boxes]
    assert numbers == [[50, 50, 100, 50], [199, 99, 1, 1]]
    assert all(type(number) is int for row in numbers for number in row)
    assert detections_to_bounding_boxes([jittered], width=200, height=100) == [boxes]


def test_every_form_of_the_hosts_boxes_is_read() -> None:
    box = {"x": 0, "y": 10, "width": 50, "height": 90, "metadata": {"label": "Cat "}}
    for boxes in (box, [box], [[box]]):
        assert layout_from_bounding_boxes(boxes, ["a cat"], 100, 100).boxes == ((0.0, 0.1, 0.5, 1.0),)
    for nothing in (None, [], [[]], [[], [box]]):
        assert layout_from_bounding_boxes(nothing, ["a cat"], 100, 100).boxes == ()


@pytest.mark.parametrize(
    "box", [{"x": 0}, {"x": 0, "y": 0, "width": 0, "height": 5}, {"x": 90, "y": 0, "width": 50, "height": 5}, "cat"]
)
def test_a_broken_box_gets_a_sentence(box: object) -> None:
    with pytest.raises(UserError):
        layout_from_bounding_boxes([[box]], ["a cat"], 100, 100)


@pytest.mark.parametrize("score", ["high", math.nan, 10**400, [1], {}])
def test_a_broken_score_gets_a_sentence(score: object) -> None:
    box = {"x": 0, "y": 0, "width": 9, "height": 5, "score": score}
    with pytest.raises(UserError, match="has the score .*; give it a number"):
        layout_from_bounding_boxes([box], ["a cat"], 100, 100)
