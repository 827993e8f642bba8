"""Predicted boxes on the host's canvas, in its real frontend: the person moves one, and that one counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from support.locations import REPOSITORY
from support.server import ComfyServer
from support.templates import graph

browser = pytest.importorskip("support.browser")

SIDE = 128
SMALL = """([side]) => {
    const of = (type) => app.graph.nodes.filter((node) => node.type === type);
    const set = (node, values) => Object.entries(values).forEach(
        ([name, value]) => { node.widgets.find((w) => w.name === name).value = value; });
    set(of("CheckpointLoaderSimple")[0], {ckpt_name: "tiny.safetensors"});
    set(of("CompInvPredictLayout")[0], {width: side, height: side});
    set(of("CreateBoundingBoxes")[0], {width: side, height: side});
    set(of("EmptyLatentImage")[0], {batch_size: 1});
    set(of("KSampler")[0], {steps: 1});
    for (const node of of("PrimitiveStringMultiline")) {
        const several = node.widgets[0].value.includes("\\n");
        set(node, {value: several ? "a cat\\na ball" : "a cat and a ball"});
    }
    app.canvas.ds.scale = 1;
    app.canvas.centerOnNode(of("CreateBoundingBoxes")[0]);
}"""
CANVAS_BOXES = """() => app.graph.nodes.find((node) => node.type === "CreateBoundingBoxes")
    .widgets.find((widget) => widget.name === "editor_state").value"""
CANVAS = '[data-testid="bounding-boxes"] canvas'


@pytest.fixture
def page(server: ComfyServer) -> Iterator[browser.Page]:
    # Only this mode shows the canvas. The setting is kept on the server, which other tests use too.
    with browser.open_frontend(server.url) as page, browser.rendering(page, True):
        yield page


def canvas_inputs(picture: Image.Image) -> dict[str, Any]:
    """What the canvas was given in the run that made the picture, from the picture's own metadata."""
    prompt = json.loads(picture.info["prompt"])
    return prompt[graph.find(prompt, "CreateBoundingBoxes")]["inputs"]


def values(state: Any) -> list[dict[str, Any]]:
    return state["__value__"] if isinstance(state, dict) else state


def test_a_box_moved_on_the_canvas_is_in_the_pictures_metadata(page: browser.Page, server: ComfyServer) -> None:
    workflow = json.loads((REPOSITORY / "workflows" / "03-compose-with-predicted-layout.json").read_text())
    assert browser.load_workflow(page, workflow) == []
    page.evaluate(SMALL, [SIDE])

    first = browser.painted(page, server, "predicted")
    page.wait_for_function(f"() => ({CANVAS_BOXES})().length === 2")
    predicted = page.evaluate(CANVAS_BOXES)
    assert [box["metadata"]["desc"] for box in predicted] == ["a cat", "a ball"]
    assert values(canvas_inputs(first)["editor_state"]) == []

    area = page.locator(CANVAS).bounding_box()
    assert area is not None
    cat = predicted[0]
    start = (cat["x"] + cat["width"] / 2) / SIDE, (cat["y"] + cat["height"] / 2) / SIDE
    page.mouse.move(area["x"] + start[0] * area["width"], area["y"] + start[1] * area["height"])
    page.mouse.down()
    page.mouse.move(area["x"] + start[0] * area["width"], area["y"] + (start[1] - 0.125) * area["height"], steps=4)
    page.mouse.up()
    page.wait_for_function(f"([y]) => ({CANVAS_BOXES})()[0].y < y", arg=[cat["y"]])
    moved = page.evaluate(CANVAS_BOXES)
    assert moved[1] == predicted[1]

    second = browser.painted(page, server, "predicted")
    inputs = canvas_inputs(second)
    assert values(inputs["editor_state"]) == moved
    assert values(inputs["last_incoming"]) and values(inputs["last_incoming"])[0]["y"] == cat["y"]
    # The guided picture follows the box that was moved, not the predicted one.
    assert first.tobytes() != second.tobytes()
    assert page.evaluate(CANVAS_BOXES) == moved
