"""The miniature world in the editor: its template learns and composes, and the panels show what came of it.

From here come the pictures of the editor in docs/images/ too (`make pictures`): then the word is learned at full
length, and the pictures are kept.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from miniworld.demo import OTHER, OWN
from miniworld.laboratory.recipe import GUIDANCE, PAINTING
from miniworld.networks.checkpoint import CHECKPOINT_NAME
from miniworld.world.instances import INSTANCES
from miniworld.world.placing import SIDE
from support.locations import REPOSITORY
from support.server import ComfyServer

browser = pytest.importorskip("support.browser")

IMAGES, HELP = REPOSITORY / "docs" / "images", REPOSITORY / "web" / "docs"
FULL = bool(os.environ.get("COMPINV_PICTURES"))
PHRASES = f"embedding:{OWN} {INSTANCES[OWN].noun}", f"a {OTHER}"
TEXT = " and ".join(PHRASES)
# [type, input, value] each, of all nodes of the type that have the input.
SET = """([values]) => {
    for (const [type, name, value] of values) {
        for (const node of app.graph.nodes.filter((each) => each.type === type)) {
            const widget = node.widgets.find((each) => each.name === name);
            if (widget) widget.value = value;
        }
    }
}"""
# Lays nodes of these types where nothing of the editor covers them, and says where they are on the page.
AREA = """([types]) => {
    const chosen = app.graph.nodes.filter((node) => types.includes(node.type)).map((node) => node.getBounding());
    const left = Math.min(...chosen.map((box) => box[0])), top = Math.min(...chosen.map((box) => box[1]));
    const right = Math.max(...chosen.map((box) => box[0] + box[2]));
    const bottom = Math.max(...chosen.map((box) => box[1] + box[3]));
    const frame = app.canvas.canvas.getBoundingClientRect();
    Object.assign(app.canvas.ds, { scale: 1, offset: [100 - left, 130 - top] });
    app.canvas.deselectAll();
    app.canvas.setDirty(true, true);
    return { x: frame.left + 88, y: frame.top + 118, width: right - left + 24, height: bottom - top + 24 };
}"""
SHOWN = """(type) => app.graph.nodes.find((node) => node.type === type).imgs
    ?.map((image) => [image.naturalWidth, image.naturalHeight])"""
PANEL = ".compinv-training"
# How far the training on the node is, as a share of its steps.
PASSED = f"""() => {{
    const text = document.querySelector("{PANEL} .text")?.textContent ?? "";
    const [, step, all] = text.match(/(\\d+) of (\\d+)/) ?? [];
    return text.startsWith("Finished") ? 1 : all ? step / all : 0;
}}"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A ComfyUI with what the template's note says: the checkpoint and photos of own things."""
    server = ComfyServer(tmp_path_factory.mktemp("world"))
    subprocess.run([sys.executable, "-m", "miniworld", str(server.base)], cwd=REPOSITORY, check=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def complaints() -> list[str]:
    return []


@pytest.fixture(scope="module")
def page(world: ComfyServer, complaints: list[str]) -> Iterator[browser.Page]:
    with browser.open_frontend(world.url, complaints) as page:
        page.set_viewport_size({"width": 1600, "height": 1700})
        page.set_default_timeout((6 if FULL else 1) * browser.PATIENCE)
        # The editor opens a graph of its own first.
        page.wait_for_function("() => app.graph.nodes.length > 0")
        yield page
    assert not [each for each in complaints if "compinv" in each.lower() or each.startswith("uncaught")]


def open_template(page: browser.Page, name: str, values: list[list[Any]]) -> None:
    workflow = json.loads((REPOSITORY / "workflows" / f"{name}.json").read_text())
    assert browser.load_workflow(page, workflow) == []
    page.evaluate(SET, [values])


def keep_picture(page: browser.Page, name: str, folder: Path, types: list[str], below: str = "") -> None:
    """Write what the page shows of nodes of these types, or only what begins with a panel of theirs.

    At full length it is a picture of the README; a whole node's is on the help page of the first node, too.
    """
    area = page.evaluate(AREA, [types])
    # What lies on the nodes follows them.
    page.wait_for_timeout(1500)
    if below:
        top = page.locator(below).bounding_box()["y"] - 12
        area |= {"y": top, "height": area["y"] + area["height"] - top}
    taken = page.screenshot(type="jpeg", quality=85, clip=area)
    (IMAGES if FULL else folder).joinpath(f"editor-{name}.jpg").write_bytes(taken)
    if FULL and not below:
        (HELP / f"{types[0]}.jpg").write_bytes(taken)


@pytest.fixture(scope="module")
def learned(page: browser.Page, world: ComfyServer, tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    """Template 08, run while somebody watches; returns the sizes of the pictures that Save Image shows."""
    every = 25 if FULL else 4
    length = [] if FULL else [["CompInvTrainConcept", "steps", 2 * every], ["EmptyLatentImage", "batch_size", 2]]
    watching = [["CompInvTrainConcept", f"{what}_every", every] for what in ("preview", "save")]
    open_template(page, "08-miniature-world", length + watching)
    page.evaluate("""() => {
        const train = app.graph.nodes.find((node) => node.type === "CompInvTrainConcept");
        train.setSize([520, train.size[1]]);
    }""")
    before = browser.press_run(page, world)
    page.wait_for_function(f"() => ({PASSED})() >= 0.85")
    keep_picture(page, "training", tmp_path_factory.mktemp("pictures"), ["CompInvTrainConcept"], PANEL)
    result = browser.finished(page, world, before)
    assert result.ok, result
    # A picture is loaded once its node is seen.
    page.evaluate("() => app.canvas.centerOnNode(app.graph.nodes.find((node) => node.type === 'SaveImage'))")
    page.wait_for_function(f"() => ({SHOWN})('SaveImage')?.length > 1")
    return page.evaluate(SHOWN, "SaveImage")


def test_the_template_learns_a_word_and_shows_pictures_with_it(
    page: browser.Page, world: ComfyServer, learned: list[list[int]]
) -> None:
    assert learned == [[SIDE, SIDE]] * len(learned) and len(learned) == (4 if FULL else 2)
    assert (world.base / "models" / "embeddings" / f"{OWN}.safetensors").is_file()
    for path in (world.base / "output" / "compinv").glob("miniature*.png"):
        with Image.open(path) as picture:
            assert len(np.unique(picture.convert("L"))) > 32
    assert page.locator(f"{PANEL} polyline").count() >= 3
    saved = page.locator(f"{PANEL} button:has(img)")
    assert saved.count() == page.locator(f"{PANEL} button").count() - 1 == (4 if FULL else 2)
    assert re.search(r"^(100|8)\n.*0\.\d\d", saved.last.inner_text())


def composing(*more: list[Any]) -> list[list[Any]]:
    """The values of a template that composes the learned word and something else in this world."""
    steps = {} if FULL else {"steps": 3}
    return [
        ["CheckpointLoaderSimple", "ckpt_name", CHECKPOINT_NAME],
        ["EmptyLatentImage", "batch_size", 1],
        *(["KSampler", name, value] for name, value in {**PAINTING, **steps}.items()),
        *(["CompInvApplyLayoutGuidance", name, value] for name, value in GUIDANCE.items()),
        *more,
    ]


def test_boxes_are_drawn_over_a_picture_and_chips_mark_the_word(
    page: browser.Page, world: ComfyServer, learned: list[list[int]], tmp_path: Path
) -> None:
    layout, guidance = "CompInvLayoutFromBoxes", "CompInvApplyLayoutGuidance"
    places = ((0.03, 0.28, 0.47, 0.88), (0.53, 0.38, 0.97, 0.88))
    boxes = [
        {"phrase": phrase, **dict(zip(("x0", "y0", "x1", "y1"), place, strict=True))}
        for phrase, place in zip(PHRASES, places, strict=True)
    ]
    values = [[layout, "phrases", "\n".join(PHRASES)], [layout, "boxes", json.dumps(boxes)], [guidance, "text", TEXT]]
    open_template(page, "02-compose-with-boxes", composing(*values, ["PrimitiveInt", "value", SIDE]))
    browser.painted(page, world, "composed").save(world.base / "input" / "composed.png")
    behind = """() => {
        const layout = app.graph.nodes.find((node) => node.type === "CompInvLayoutFromBoxes");
        const picture = LiteGraph.createNode("LoadImage");
        picture.pos = [layout.pos[0], layout.pos[1] + 700];
        app.graph.add(picture);
        picture.widgets.find((widget) => widget.name === "image").value = "composed.png";
        picture.connect(0, layout, layout.inputs.findIndex((input) => input.name === "image"));
    }"""
    page.evaluate(behind)
    result = browser.finished(page, world, browser.press_run(page, world))
    assert result.ok and not result.remarks, result
    ground = page.locator(".compinv-ground")
    page.wait_for_function("(ground) => ground.style.backgroundImage.includes('url')", arg=ground.element_handle())
    assert page.locator(".compinv-box:not(.predicted)").count() == 2
    chips = page.locator(".compinv-tokens .compinv-chip.caught").all_inner_texts()
    assert chips == [OWN, INSTANCES[OWN].noun, "a", OTHER]
    keep_picture(page, "boxes", tmp_path, [layout, guidance])


def test_the_attention_of_the_word_is_scrubbed(
    page: browser.Page, world: ComfyServer, learned: list[list[int]], tmp_path: Path
) -> None:
    text = "PrimitiveStringMultiline"
    open_template(
        page,
        "03-compose-with-predicted-layout",
        composing(["CompInvLoadLayoutPredictor", "filename", "miniature world"]),
    )
    words = """([type, phrases, text]) => app.graph.nodes.filter((node) => node.type === type).forEach((node) => {
        node.widgets[0].value = node.widgets[0].value.includes("\\n") ? phrases : text;
    })"""
    page.evaluate(words, [text, "\n".join(PHRASES), TEXT])
    page.evaluate(SET, [[["CompInvPredictLayout", side, SIDE] for side in ("width", "height")]])
    page.evaluate(SET, [[["CreateBoundingBoxes", side, SIDE] for side in ("width", "height")]])
    result = browser.finished(page, world, browser.press_run(page, world))
    assert result.ok, result
    panel = page.locator(".compinv-attention")
    page.evaluate(AREA, [["CompInvShowAttention"]])
    panel.locator("canvas").wait_for(state="visible")
    assert panel.locator("button").all_inner_texts() == list(PHRASES)
    panel.get_by_label("Step", exact=True).focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert panel.locator("output").inner_text().startswith(f"step {3 if FULL else 2} of 0 to")
    keep_picture(page, "attention", tmp_path, ["CompInvShowAttention"])
