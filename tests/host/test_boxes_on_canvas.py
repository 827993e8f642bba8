"""Boxes that a detector found, on the host's canvas: they start it under their names, and moved ones win."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from PIL import Image

from compinv_core.boxes.layout import Layout
from miniworld.world.dataset import scene_rng
from miniworld.world.scenes import SIDE, render_scene
from support.server import ComfyServer, PromptResult

RT_DETR = [
    {"x": 70.6, "y": 30.1, "width": 40.8, "height": 57.5, "label": "person", "score": 0.95},
    {"x": 64.25, "y": 64.5, "width": 32.5, "height": 32.25, "label": "sports ball", "score": 0.9},
    {"x": -0.75, "y": 20.5, "width": 51.0, "height": 60.75, "label": "cat", "score": 0.75},
]
"""As the host's RTDETR_detect writes them, whose weights are not here."""


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def layout_node(bboxes: Any, phrases: str, **elements: Any) -> dict[str, Any]:
    return node("CompInvLayoutFromBoxes", bboxes=bboxes, phrases=phrases, width=SIDE, height=SIDE, **elements)


def canvas_graph(source: list, phrases: str, editor: list | None = None, seen: list | None = None) -> dict[str, Any]:
    """Boxes of a node, the canvas, and the layout behind it; `editor` and `seen` are what the editor keeps."""
    state = {"editor_state": {"__value__": editor or []}, "last_incoming": {"__value__": seen or []}}
    return {
        "canvas": node("CreateBoundingBoxes", bboxes=source, width=SIDE, height=SIDE, **state),
        "layout": layout_node(["canvas", 1], phrases, elements=["canvas", 2]),
        "text": node("PreviewAny", source=["layout", 0]),
    }


def layout_of(result: PromptResult) -> Layout:
    assert result.ok, result
    shown = ast.parse(result.outputs["text"]["text"][0], mode="eval").body
    assert isinstance(shown, ast.Call)
    return Layout(**{str(field.arg): ast.literal_eval(field.value) for field in shown.keywords})


def moved(boxes: list[dict[str, Any]], name: str, **place: int) -> list[dict[str, Any]]:
    """The canvas's boxes after the person changed one of them."""
    assert [box["metadata"]["desc"] for box in boxes].count(name) == 1
    return [{**box, **place} if box["metadata"]["desc"] == name else box for box in boxes]


@pytest.fixture
def detecting(server: ComfyServer) -> dict[str, Any]:
    """Detect on a drawing of a boat and a moon, with the detector that comes with the pack."""
    Image.fromarray(render_scene(scene_rng(9, 3), ["boat", "moon"]).image).save(server.base / "input" / "scene.png")
    return {
        "image": node("LoadImage", image="scene.png"),
        "detector": node("CompInvLoadDetector", backend="yolo", model="miniature world", threshold=0.5),
        "found": node("CompInvDetect", detector=["detector", 0], image=["image", 0]),
    }


def test_found_boxes_start_the_canvas_and_moved_ones_win(server: ComfyServer, detecting: dict[str, Any]) -> None:
    phrases = "a moon\nthe boats"
    direct = {"layout": layout_node(["found", 0], phrases), "text": node("PreviewAny", source=["layout", 0])}
    expected = layout_of(server.run({**detecting, **direct}))
    assert expected.phrases == ("a moon", "the boats")

    result = server.run({**detecting, **canvas_graph(["found", 0], phrases)})
    assert layout_of(result) == expected
    incoming = result.outputs["canvas"]["input_bboxes"]

    edited = moved(incoming, "moon", x=8, y=96, width=16, height=24)
    # In another batch the detector looks at the drawing again, and finds the same whole pixels.
    again = {
        **detecting,
        "twice": node("RepeatImageBatch", image=["image", 0], amount=2),
        "found": node("CompInvDetect", detector=["detector", 0], image=["twice", 0]),
    }
    layout = layout_of(server.run({**again, **canvas_graph(["found", 0], phrases, edited, incoming)}))
    assert layout.boxes == ((8 / SIDE, 96 / SIDE, 24 / SIDE, 120 / SIDE), expected.boxes[1])


def test_boxes_of_rt_detr_reach_the_canvas_under_their_phrases(server: ComfyServer) -> None:
    phrases = "embedding:my-cat cat\na ball"
    first = {"named": layout_node({"__value__": [RT_DETR]}, phrases)}
    result = server.run({**first, **canvas_graph(["named", 1], phrases)})
    pixels = ((0, 20, 50, 81), (64, 64, 97, 97))
    assert layout_of(result).boxes == tuple(tuple(value / SIDE for value in box) for box in pixels)
    incoming = result.outputs["canvas"]["input_bboxes"]
    assert [box["metadata"]["desc"] for box in incoming] == ["embedding:my-cat cat", "a ball"]

    edited = moved(incoming, "a ball", x=32)[::-1]
    layout = layout_of(server.run({**first, **canvas_graph(["named", 1], phrases, edited, incoming)}))
    assert layout.phrases == ("embedding:my-cat cat", "a ball")
    assert [box[0] for box in layout.boxes] == [0, 32 / SIDE]
