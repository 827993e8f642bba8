"""The canvas on Layout From Boxes and Predict Layout, in both renderers of the host's frontend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from support.server import ComfyServer
from support.templates import graph

browser = pytest.importorskip("support.browser")
build = pytest.importorskip("support.templates.build_workflows").BUILD

SIDE = 64
VALUE = """(type) => app.graph.nodes.find((node) => node.type === type).widgets.find((w) => w.name === "boxes").value"""
SHOW = """(type) => {
    app.canvas.ds.scale = 1;
    app.canvas.centerOnNode(app.graph.nodes.find((node) => node.type === type));
}"""
# The editor lays a new node out over several frames.
PLACE = """async () => {
    for (let still = 0, last = ""; ; ) {
        await new Promise(requestAnimationFrame);
        const { x, y, width, height } = document.querySelector(".compinv-ground").getBoundingClientRect();
        const place = [x, y, width, height];
        still = width > 50 && place.join() === last ? still + 1 : 0;
        last = place.join();
        if (still === 20) return place;
    }
}"""
FROM_BOXES, PREDICT = "CompInvLayoutFromBoxes", "CompInvPredictLayout"
PHRASES = {"phrases": "a cat\na ball", "width": SIDE, "height": SIDE}


def nodes(layout: dict[str, tuple]) -> dict[str, tuple]:
    """A graph that paints a picture with a layout in one step."""
    source = ("checkpoint", 0), ("checkpoint", 1)
    sampling = {"seed": 1, "control_after_generate": "fixed", "steps": 1, "cfg": 1.0}
    strong = {"text": "a cat and a ball", "strength": 500.0, "threshold": 0.0, "max_iterations": 1}
    return {
        "checkpoint": ("CheckpointLoaderSimple", "", (0, 0), (320, 100), {"ckpt_name": "tiny.safetensors"}, {}),
        **layout,
        "guidance": (
            "CompInvApplyLayoutGuidance", "", (900, 0), (360, 420), strong,
            {"model": source[0], "clip": source[1], "layout": ("layout", 0)},
        ),
        "negative": ("CLIPTextEncode", "", (900, 700), (300, 100), {"text": ""}, {"clip": source[1]}),
        "latent": ("EmptyLatentImage", "", (900, 900), (300, 100), {"width": SIDE, "height": SIDE}, {}),
        "sampler": (
            "KSampler", "", (1400, 0), (300, 280), sampling,
            {"model": ("guidance", 0), "positive": ("guidance", 1), "negative": ("negative", 0),
             "latent_image": ("latent", 0)},
        ),
        "decode": ("VAEDecode", "", (1800, 0), (300, 60), {}, {"samples": ("sampler", 0), "vae": ("checkpoint", 2)}),
        "images": ("SaveImage", "", (2200, 0), (400, 400), {"filename_prefix": "drawn"}, {"images": ("decode", 0)}),
    }  # fmt: skip


DRAWN = nodes({"layout": (FROM_BOXES, "", (420, 0), (400, 500), PHRASES, {})})
PREDICTED = nodes(
    {
        "predictor": ("CompInvLoadLayoutPredictor", "", (0, 200), (320, 80), {}, {}),
        "layout": (
            PREDICT, "", (420, 0), (400, 300), PHRASES, {"predictor": ("predictor", 0), "clip": ("checkpoint", 1)}
        ),
    }
)  # fmt: skip


@pytest.fixture(scope="module", params=[False, True], ids=["LiteGraph", "Vue"])
def page(request: pytest.FixtureRequest, server: ComfyServer) -> Iterator[browser.Page]:
    complaints: list[str] = []
    with browser.open_frontend(server.url, complaints) as page, browser.rendering(page, request.param):
        yield page
    assert not [each for each in complaints if "compinv" in each.lower() or each.startswith("uncaught")]


def open_graph(page: browser.Page, described: dict[str, tuple], kind: str) -> None:
    page.evaluate(build, [list(described.items()), {}])
    page.evaluate(SHOW, kind)
    page.locator(".compinv-canvas").wait_for()


def value(page: browser.Page, kind: str) -> dict[str, list[float]]:
    """The drawn boxes by phrase."""
    text = page.evaluate(VALUE, kind)
    return {box["phrase"]: [box[key] for key in ("x0", "y0", "x1", "y1")] for box in json.loads(text or "[]")}


def drag(page: browser.Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag on the canvas, from and to fractions of it, once it lies still."""
    left, top, width, height = page.evaluate(PLACE)
    for number, (x, y) in enumerate((start, end)):
        page.mouse.move(left + x * width, top + y * height, steps=4)
        if not number:
            page.mouse.down()
    page.mouse.up()


def kept(picture: Image.Image, kind: str) -> str:
    prompt = json.loads(picture.info["prompt"])
    return prompt[graph.find(prompt, kind)]["inputs"]["boxes"]


def wait_for_boxes(page: browser.Page, count: int) -> None:
    page.wait_for_function(f"() => document.querySelectorAll('.compinv-box').length === {count}")


def test_boxes_are_drawn_moved_and_kept(page: browser.Page, server: ComfyServer, tmp_path: Path) -> None:
    open_graph(page, DRAWN, FROM_BOXES)
    assert not page.locator(".compinv-box").count()
    drag(page, (0.1, 0.1), (0.4, 0.7))
    drag(page, (0.6, 0.2), (0.9, 0.82))
    drawn = value(page, FROM_BOXES)
    assert drawn["a cat"] == pytest.approx([0.1, 0.1, 0.4, 0.7], abs=0.01)
    assert drawn["a ball"] == pytest.approx([0.6, 0.2, 0.9, 0.82], abs=0.01)
    # Every phrase has its box: there is no third one.
    drag(page, (0.45, 0.9), (0.55, 0.97))
    assert value(page, FROM_BOXES) == drawn
    page.screenshot(path=tmp_path / "drawn.png")
    first = browser.painted(page, server, "drawn")
    assert kept(first, FROM_BOXES) == page.evaluate(VALUE, FROM_BOXES)

    drag(page, (0.25, 0.4), (0.45, 0.53))
    moved = value(page, FROM_BOXES)
    assert moved["a ball"] == drawn["a ball"]
    assert moved["a cat"] == pytest.approx([0.3, 0.23, 0.6, 0.83], abs=0.03)
    # It snapped to the edge of the other box, and to the ball's lower one or nothing across.
    assert moved["a cat"][2] == drawn["a ball"][0]
    second = browser.painted(page, server, "drawn")
    assert kept(second, FROM_BOXES) == page.evaluate(VALUE, FROM_BOXES)
    assert first.tobytes() != second.tobytes()

    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("Control+z")
    page.wait_for_function(f"([kind, text]) => ({VALUE})(kind) === text", arg=[FROM_BOXES, kept(first, FROM_BOXES)])
    # What is shown is the node that undo made anew.
    wait_for_boxes(page, 2)
    page.locator(f".compinv-box[aria-label^='a cat: {round(100 * drawn['a cat'][0])} %']").wait_for(timeout=30_000)


def test_edges_keys_names_and_buttons(page: browser.Page) -> None:
    open_graph(page, DRAWN, FROM_BOXES)
    area = page.locator(".compinv-ground")
    page.evaluate(PLACE)
    # In its middle, wherever the node's height puts that.
    area.dblclick()
    assert list(value(page, FROM_BOXES)) == ["a cat"]
    start = value(page, FROM_BOXES)["a cat"]
    assert start == pytest.approx([0.3, 0.3, 0.7, 0.7], abs=0.02)
    drag(page, (start[2], start[3]), (0.85, 0.9))
    assert value(page, FROM_BOXES)["a cat"] == pytest.approx([*start[:2], 0.85, 0.9], abs=0.01)
    drag(page, (start[0], 0.6), (0.1, 0.6))
    box = value(page, FROM_BOXES)["a cat"]
    assert box == pytest.approx([0.1, start[1], 0.85, 0.9], abs=0.01)

    page.locator(".compinv-box").focus()
    for key, (x0, x1) in (
        ("ArrowRight", (0.01, 0.01)),
        ("Shift+ArrowRight", (0.06, 0.06)),
        ("Alt+ArrowLeft", (0.06, 0.05)),
    ):
        page.keyboard.press(key)
        now = value(page, FROM_BOXES)["a cat"]
        assert (now[0] - box[0], now[2] - box[2]) == pytest.approx((x0, x1), abs=1e-6)
    page.locator(".compinv-bar select").select_option("a ball")
    assert value(page, FROM_BOXES) == {"a ball": now}
    page.locator(".compinv-bar button", has_text="+ box").click()
    assert list(value(page, FROM_BOXES)) == ["a cat", "a ball"]
    page.keyboard.press("Delete")
    assert list(value(page, FROM_BOXES)) == ["a ball"]
    # The key deleted the box and not the node.
    assert page.evaluate("() => app.graph.nodes.length") == len(DRAWN)


def test_reload_clone_and_subgraph_keep_the_boxes(page: browser.Page, tmp_path: Path) -> None:
    open_graph(page, DRAWN, FROM_BOXES)
    drag(page, (0.1, 0.1), (0.4, 0.7))
    text = page.evaluate(VALUE, FROM_BOXES)
    page.evaluate("async () => { await app.loadGraphData(app.graph.serialize()); }")
    page.evaluate(SHOW, FROM_BOXES)
    wait_for_boxes(page, 1)
    assert page.evaluate(VALUE, FROM_BOXES) == text

    browser.reload(page, text)
    page.evaluate(SHOW, FROM_BOXES)
    wait_for_boxes(page, 1)
    assert page.evaluate(VALUE, FROM_BOXES) == text
    assert page.locator(".compinv-box").get_attribute("aria-label").startswith("a cat: 10 %, 10 %")

    clones = """() => {
        const node = app.graph.nodes.find((each) => each.type === "CompInvLayoutFromBoxes"), clone = node.clone();
        clone.pos = [node.pos[0], node.pos[1] - 700];
        app.graph.add(clone);
        return clone.widgets.find((widget) => widget.name === "boxes").value;
    }"""
    assert page.evaluate(clones) == text
    wait_for_boxes(page, 2)

    inner = """() => {
        const clone = app.graph.nodes.findLast((each) => each.type === "CompInvLayoutFromBoxes");
        app.graph.remove(clone);
        const node = app.graph.nodes.find((each) => each.type === "CompInvLayoutFromBoxes");
        const { subgraph } = app.graph.convertToSubgraph(new Set([node]));
        app.canvas.setGraph(subgraph);
        const inside = subgraph.nodes.find((each) => each.type === "CompInvLayoutFromBoxes");
        app.canvas.ds.scale = 1;
        app.canvas.centerOnNode(inside);
        return inside.widgets.find((widget) => widget.name === "boxes").value;
    }"""
    assert page.evaluate(inner) == text
    wait_for_boxes(page, 1)
    drag(page, (0.25, 0.4), (0.45, 0.4))
    prompt = browser.api_prompt(page)
    (moved,) = json.loads(prompt[graph.find(prompt, FROM_BOXES)]["inputs"]["boxes"])
    assert moved["x0"] == pytest.approx(0.3, abs=0.03) and moved["phrase"] == "a cat"
    page.screenshot(path=tmp_path / "subgraph.png")
    page.evaluate("() => app.canvas.setGraph(app.rootGraph)")


def test_a_predicted_box_is_moved_and_given_back(page: browser.Page, server: ComfyServer, tmp_path: Path) -> None:
    open_graph(page, PREDICTED, PREDICT)
    first = browser.painted(page, server, "drawn")
    wait_for_boxes(page, 2)
    page.evaluate(SHOW, PREDICT)
    assert page.locator(".compinv-box.predicted").count() == 2 and value(page, PREDICT) == {}
    place = "() => [...document.querySelectorAll('.compinv-box')].map((box) => box.getAttribute('aria-label'))"
    labels = page.evaluate(place)
    page.screenshot(path=tmp_path / "predicted.png")

    drag(page, (0.25, 0.5), (0.25, 0.35))
    assert list(value(page, PREDICT)) == ["a cat"]
    assert page.locator(".compinv-box.predicted").count() == 1
    second = browser.painted(page, server, "drawn")
    assert kept(second, PREDICT) == page.evaluate(VALUE, PREDICT)
    assert first.tobytes() != second.tobytes()

    moved = page.evaluate(VALUE, PREDICT)
    page.locator(".compinv-box:not(.predicted)").click()
    page.locator(".compinv-bar button", has_text="back").click()
    assert page.evaluate(VALUE, PREDICT) == ""
    assert sorted(page.evaluate(place)) == sorted(labels)

    # The predictions are there after undo, and in the browser's next session.
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("Control+z")
    page.wait_for_function(f"([kind, text]) => ({VALUE})(kind) === text", arg=[PREDICT, moved])
    counted = "[...document.querySelectorAll('.compinv-box')].map((box) => box.matches('.predicted')).join()"
    page.wait_for_function(f"() => {counted} === 'false,true'", timeout=30_000)
    browser.reload(page, moved)
    page.evaluate(SHOW, PREDICT)
    page.wait_for_function(f"() => {counted} === 'false,true'", timeout=30_000)
    assert page.evaluate(VALUE, PREDICT) == moved


def test_an_earlier_workflow_opens_as_it_was(page: browser.Page) -> None:
    """As it was saved when `bboxes` was required and there was no canvas on the node."""
    kinds = {"bboxes": "BOUNDING_BOX", "phrases": "STRING", "width": "INT", "height": "INT", "elements": "ARRAY"}
    inputs = [
        {"name": name, "type": kind, "link": {"bboxes": 1, "elements": 2}.get(name)}
        | ({"widget": {"name": name}} if name in PHRASES else {})
        for name, kind in kinds.items()
    ]
    box = {"x": 1, "y": 2, "width": 3, "height": 4, "metadata": {"type": "obj", "desc": "a cat"}}
    source = {
        "id": 1, "type": "CreateBoundingBoxes", "pos": [0, 0], "size": [400, 600], "flags": {}, "order": 0, "mode": 0,
        "inputs": [], "properties": {}, "widgets_values": [SIDE, SIDE, [box], []],
        "outputs": [
            {"name": "preview", "type": "IMAGE", "links": None},
            {"name": "bboxes", "type": "BOUNDING_BOX", "links": [1]},
            {"name": "elements", "type": "ARRAY", "links": [2]},
        ],
    }  # fmt: skip
    layout = {
        "id": 2, "type": FROM_BOXES, "pos": [500, 0], "size": [340, 200], "flags": {}, "order": 1, "mode": 0,
        "inputs": inputs, "properties": {}, "widgets_values": ["a cat", 128, 96],
        "outputs": [{"name": "layout", "type": "COMPINV_LAYOUT", "links": None}],
    }  # fmt: skip
    links = [[1, 1, 1, 2, 0, "BOUNDING_BOX"], [2, 1, 2, 2, 4, "ARRAY"]]
    saved = {"version": 0.4, "last_node_id": 2, "last_link_id": 2, "nodes": [source, layout], "links": links}
    assert browser.load_workflow(page, saved) == []
    assert browser.api_prompt(page)["2"]["inputs"] == {
        "bboxes": ["1", 1], "elements": ["1", 2], "phrases": "a cat", "width": 128, "height": 96, "boxes": ""
    }  # fmt: skip
    # With boxes from elsewhere the canvas is folded, and the node no higher than a little.
    page.get_by_text("▸ boxes").wait_for()
    assert page.locator(".compinv-ground:visible").count() == 0
    assert page.evaluate("() => app.graph.getNodeById(2).size[1]") < 280
