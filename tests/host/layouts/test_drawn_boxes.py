"""Boxes drawn on Layout From Boxes and Predict Layout, on the server; and phrases and nouns that are typed once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL import Image

from support.server import ComfyServer, PromptResult

SIDE = 64
PHRASES = "a cat\na ball"
LEFT = {"x": 0, "y": 0, "width": 32, "height": 64}
RIGHT = {"x": 32, "y": 0, "width": 32, "height": 64}
CAT = {"phrase": "a cat", "x0": 0.25, "y0": 0.5, "x1": 0.75, "y1": 1.0}
BALL = {"phrase": "a ball", "x0": 0.0, "y0": 0.0, "x1": 0.25, "y1": 0.25}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def drawn(*boxes: dict) -> str:
    return json.dumps(boxes)


def graph(kind: str, **inputs: Any) -> dict[str, Any]:
    return {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name="tiny.safetensors"),
        "predictor": node("CompInvLoadLayoutPredictor", filename="side-by-side"),
        "layout": node(kind, phrases=PHRASES, width=SIDE, height=SIDE, **inputs),
        "boxes": node("PreviewAny", source=["layout", 1]),
    }


def from_boxes(**inputs: Any) -> dict[str, Any]:
    return graph("CompInvLayoutFromBoxes", **inputs)


def predicted(**inputs: Any) -> dict[str, Any]:
    return graph("CompInvPredictLayout", predictor=["predictor", 0], clip=["checkpoint", 1], **inputs)


def places(result: PromptResult) -> list[tuple[int, ...]]:
    """The boxes that came out, in pixels."""
    assert result.ok, result
    (boxes,) = json.loads(result.outputs["boxes"]["text"][0])
    return [tuple(box[key] for key in ("x", "y", "width", "height")) for box in boxes]


HALVES = [(0, 0, 32, 64), (32, 0, 32, 64)]


def test_prompts_without_drawn_boxes_work_as_before(server: ComfyServer) -> None:
    incoming = {"__value__": [[LEFT, RIGHT]]}
    assert places(server.run(from_boxes(bboxes=incoming))) == HALVES
    assert places(server.run(from_boxes(bboxes=incoming, boxes=""))) == HALVES
    result = server.run(predicted())
    before = places(result)
    assert [each["phrase"] for each in result.outputs["layout"]["compinv_predicted"]] == ["a cat", "a ball"]
    assert result.outputs["layout"]["compinv_size"] == [SIDE, SIDE] and before[0][0] < before[1][0]


def test_drawn_boxes_are_the_layout(server: ComfyServer) -> None:
    # A cat from x 16 to 48 and y 32 to 64, a ball in the upper left sixteenth.
    assert places(server.run(from_boxes(boxes=drawn(BALL, CAT)))) == [(16, 32, 32, 32), (0, 0, 16, 16)]


def test_a_drawn_box_wins_over_the_incoming_one_of_its_phrase(server: ComfyServer) -> None:
    result = server.run(from_boxes(bboxes={"__value__": [[LEFT, RIGHT]]}, boxes=drawn(CAT)))
    assert places(result) == [(16, 32, 32, 32), HALVES[1]]
    # The node shows the incoming box of the phrase that was not drawn.
    assert [each["phrase"] for each in result.outputs["layout"]["compinv_predicted"]] == ["a ball"]


def test_a_moved_box_overrides_its_prediction_alone(server: ComfyServer) -> None:
    own = server.run(predicted())
    result = server.run(predicted(boxes=drawn(BALL)))
    assert places(result) == [places(own)[0], (0, 0, 16, 16)]
    # What was predicted is told, so that the person can go back to it.
    assert result.outputs["layout"]["compinv_predicted"] == own.outputs["layout"]["compinv_predicted"]


def test_the_picture_is_shown_and_changes_nothing(server: ComfyServer) -> None:
    Image.new("RGB", (32, 16), "red").save(server.base / "input" / "ground.png")
    ground = {"ground": node("LoadImage", image="ground.png")}
    result = server.run(ground | from_boxes(boxes=drawn(CAT, BALL), image=["ground", 0]))
    assert places(result) == [(16, 32, 32, 32), (0, 0, 16, 16)]
    (picture,) = result.outputs["layout"]["compinv_picture"]
    assert Image.open(server.base / picture["type"] / picture["filename"]).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("make", [from_boxes, predicted], ids=["Layout From Boxes", "Predict Layout"])
@pytest.mark.parametrize(
    ("boxes", "part"),
    [
        ("[", "is not JSON"),
        (drawn(CAT | {"phrase": "a dog"}), "belongs to none of the `phrases`"),
        (drawn(CAT | {"x1": 2}), "move it inside"),
    ],
)
def test_bad_boxes_get_a_sentence(server: ComfyServer, make: Any, boxes: str, part: str) -> None:
    result = server.run(make(boxes=boxes))
    assert part in result.error and result.error_node == make()["layout"]["class_type"]


def test_phrases_come_with_the_layout(server: ComfyServer) -> None:
    record = node(
        "CompInvRecordAttention", model=["checkpoint", 0], clip=["checkpoint", 1], text="a cat and a ball",
        phrases="", layout=["layout", 0],
    )  # fmt: skip
    prompt = from_boxes(boxes=drawn(CAT, BALL)) | {"record": record, "told": node("PreviewAny", source=["record", 1])}
    result = server.run(prompt)
    assert result.ok, result
    assert "('a cat', 'a ball')" in result.outputs["told"]["text"][0]
    nothing = from_boxes() | {"record": record, "told": node("PreviewAny", source=["record", 1])}
    assert "connect a `layout`" in server.run(nothing).error
