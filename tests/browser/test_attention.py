"""The attention of phrases on Show Attention: another map for another step and phrase, by hand and by keys."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server import ComfyServer
from support.templates import mistakes
from support.templates.graph import Prompt

browser = pytest.importorskip("support.browser")

LOAD = """async ([prompt]) => {
    await app.loadApiJson(prompt, "attention");
    // As a workflow of its own it gets an id.
    const workflow = app.graph.serialize();
    delete workflow.id;
    await app.loadGraphData(workflow);
    app.canvas.ds.scale = 1;
    app.canvas.centerOnNode(app.graph.nodes.find((node) => node.type === "CompInvShowAttention"));
    await app.queuePrompt(0);
}"""
MAP = "() => document.querySelector('.compinv-map').toDataURL()"
PANEL = ".compinv-attention"


def recorded(images: int) -> Prompt:
    prompt = mistakes.guided(steps=4)
    text = prompt["4"]["inputs"]["text"]
    prompt["record"] = {
        "class_type": "CompInvRecordAttention",
        "inputs": {"model": ["4", 0], "clip": ["1", 1], "text": text, "phrases": "a cat\na ball"},
    }
    prompt["6"]["inputs"]["batch_size"] = images
    prompt["7"]["inputs"]["model"] = ["record", 0]
    prompt["show"] = {
        "class_type": "CompInvShowAttention",
        "inputs": {"attention": ["record", 1], "samples": ["7", 0], "image": ["8", 0], "step": -1},
    }
    return prompt


@pytest.fixture(scope="module")
def page(server: ComfyServer) -> Iterator[browser.Page]:
    with browser.open_frontend(server.url) as page:
        yield page


@pytest.fixture(params=["LiteGraph", "Nodes 2.0"])
def panel(request: pytest.FixtureRequest, page: browser.Page) -> Iterator[browser.Page]:
    with browser.rendering(page, request.param == "Nodes 2.0"):
        page.evaluate(LOAD, [recorded(2)])
        page.locator(f"{PANEL} canvas").wait_for(state="visible")
        yield page


def test_another_step_phrase_or_image_is_another_map(panel: browser.Page, tmp_path: Path) -> None:
    seen = [panel.evaluate(MAP)]
    slider = panel.get_by_label("Step", exact=True)
    assert panel.locator(f"{PANEL} output").inner_text() == "step 0 of 0 to 3"
    slider.focus()
    panel.keyboard.press("ArrowRight")
    assert panel.locator(f"{PANEL} output").inner_text() == "step 1 of 0 to 3"
    seen.append(panel.evaluate(MAP))
    panel.locator(f"{PANEL} button", has_text="a ball").click()
    seen.append(panel.evaluate(MAP))
    # The keys go on from a button, too.
    panel.keyboard.press("ArrowRight")
    seen.append(panel.evaluate(MAP))
    panel.get_by_label("Image of the batch").select_option("1")
    seen.append(panel.evaluate(MAP))
    assert len(set(seen)) == len(seen)
    panel.screenshot(path=tmp_path / "attention.png")

    charts = panel.locator(f"{PANEL} svg")
    assert charts.count() == 2
    assert all("M" in path.get_attribute("d") for path in charts.locator("path").all())
    assert panel.locator(f"{PANEL} button[aria-pressed=true]").all_inner_texts() == ["a ball"]


def test_it_is_there_after_a_reload_until_the_maps_are_gone(
    panel: browser.Page, server: ComfyServer, tmp_path: Path
) -> None:
    panel.reload()
    panel.wait_for_function(browser.READY)
    panel.locator(f"{PANEL} canvas").wait_for(state="visible")
    assert len(panel.evaluate(MAP)) > 1000
    kept = shutil.move(server.base / "temp" / "compinv", tmp_path / "moved")
    panel.reload()
    panel.wait_for_function(browser.READY)
    panel.get_by_text("The maps of the last run are gone").wait_for(state="visible")
    shutil.move(kept, server.base / "temp" / "compinv")
