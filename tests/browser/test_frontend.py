"""The pack in ComfyUI's real frontend."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.locations import REPOSITORY
from support.server import PACK_FOLDER, ComfyServer
from support.templates import graph

browser = pytest.importorskip("support.browser")

WORKFLOWS = sorted((REPOSITORY / "workflows").glob("*.json"))
# The frontend has complaints of its own (a new user's settings are not there yet); these would be about us.
OURS = re.compile(r"^uncaught|compinv", re.IGNORECASE)


@pytest.fixture(scope="module")
def complaints() -> list[str]:
    """Errors that the browser reported while these tests ran."""
    return []


@pytest.fixture(scope="module")
def page(server: ComfyServer, complaints: list[str]) -> Iterator[browser.Page]:
    with browser.open_frontend(server.url, complaints) as page:
        yield page


@pytest.fixture(scope="module")
def object_info(server: ComfyServer) -> dict:
    return server.get("/object_info")


def test_the_pack_loads_without_errors(page: browser.Page, complaints: list[str], object_info: dict) -> None:
    ours = [key for key, info in object_info.items() if info["python_module"] == f"custom_nodes.{PACK_FOLDER}"]
    assert ours
    assert page.evaluate("(ids) => ids.filter((id) => !LiteGraph.registered_node_types[id])", ours) == []
    assert not [complaint for complaint in complaints if OURS.search(complaint)]


def test_help_pages_are_served(page: browser.Page, server: ComfyServer) -> None:
    for document in (REPOSITORY / "web" / "docs").glob("*.md"):
        answer = page.request.get(f"{server.url}/extensions/{PACK_FOLDER}/docs/{document.name}")
        assert answer.ok
        assert answer.text() == document.read_text()


def test_templates_are_offered(page: browser.Page, server: ComfyServer) -> None:
    assert set(server.get("/workflow_templates")[PACK_FOLDER]) == {path.stem for path in WORKFLOWS}
    # The template browser fetches the graph and its thumbnail from here.
    for path in WORKFLOWS:
        answer = page.request.get(f"{server.url}/api/workflow_templates/{PACK_FOLDER}/{path.name}")
        assert answer.json() == json.loads(path.read_text())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_template_opens_whole(
    page: browser.Page, object_info: dict, path: Path, tmp_path: Path, complaints: list[str]
) -> None:
    workflow = json.loads(path.read_text())
    before = len(complaints)

    missing = browser.load_workflow(page, workflow)
    page.screenshot(path=tmp_path / f"{path.stem}.png")

    assert missing == []
    assert page.evaluate("() => app.graph.nodes.length") == len(workflow["nodes"])
    assert not [complaint for complaint in complaints[before:] if OURS.search(complaint)]
    # The host tests run what this conversion yields, so it must be what the Run button would queue.
    assert without_titles(browser.api_prompt(page)) == graph.to_prompt(workflow, object_info)


def without_titles(prompt: graph.Prompt) -> graph.Prompt:
    """Drop the node titles that the editor adds for error messages."""
    return {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in prompt.items()}


# The least contrast, by the rules for accessible pages, of what is written in our panels with what it is written on.
CONTRAST = """() => {
    const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 })
        .getContext("2d", { willReadFrequently: true });
    const over = (colours) => {
        for (const colour of colours) { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); }
        return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const light = (colour) => colour
        .map((value) => value / 255)
        .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
        .reduce((sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at], 0.05);
    const written = [...document.querySelectorAll(".compinv *")]
        .filter((each) => each.checkVisibility() && [...each.childNodes].some((child) => child.nodeValue?.trim()));
    return written.map((each) => {
        const below = [LiteGraph.NODE_DEFAULT_BGCOLOR];
        const chain = [];
        for (let at = each; at; at = at.parentElement) chain.unshift(getComputedStyle(at).backgroundColor);
        const ground = over([...below, ...chain]), ink = over([getComputedStyle(each).color]);
        const [low, high] = [light(ground), light(ink)].sort((one, other) => one - other);
        return [high / low, each.textContent];
    });
}"""


@pytest.mark.parametrize("palette", ["dark", "light"])
def test_panels_can_be_read_in_either_palette(page: browser.Page, palette: str, tmp_path: Path) -> None:
    browser.load_workflow(page, json.loads((REPOSITORY / "workflows" / "02-compose-with-boxes.json").read_text()))
    choose = "async (palette) => { await app.extensionManager.setting.set('Comfy.ColorPalette', palette); }"
    page.evaluate(choose, palette)
    try:
        page.locator(".compinv-chip.caught").first.wait_for()
        page.wait_for_timeout(500)
        page.screenshot(path=tmp_path / f"{palette}.png")
        written = page.evaluate(CONTRAST)
        assert {"a", "ball"} <= {text for _, text in written}
        assert [(contrast, text) for contrast, text in written if contrast < 4.5] == []
    finally:
        page.evaluate(choose, "dark")
