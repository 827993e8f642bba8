"""Templates as a person meets them: nothing covered, downloads offered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.locations import REPOSITORY
from support.server import ComfyServer

browser = pytest.importorskip("support.browser")

WORKFLOWS = sorted((REPOSITORY / "workflows").glob("*.json"))
CHECKPOINTS = {"v1-5-pruned-emaonly-fp16.safetensors", "sd_xl_base_1.0.safetensors"}
# Of the nodes as they are drawn: (title, left, top, right, bottom).
DRAWN = """([vue]) => app.graph.nodes.map((node) => {
    if (!vue) {
        const [left, top, width, height] = node.getBounding();
        return [node.title, left, top, left + width, top + height];
    }
    const box = document.querySelector(`[data-node-id="${node.id}"]`).getBoundingClientRect();
    return [node.title, box.left, box.top, box.right, box.bottom];
})"""


@pytest.fixture(scope="module")
def bare_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A new ComfyUI: no checkpoint, and one picture."""
    server = ComfyServer(tmp_path_factory.mktemp("bare"))
    (server.base / "input" / "example.png").write_bytes((REPOSITORY / "docs" / "images" / "icon.png").read_bytes())
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def page(bare_server: ComfyServer) -> Iterator[browser.Page]:
    with browser.open_frontend(bare_server.url) as page:
        # The editor opens a graph of its own first.
        page.wait_for_function("() => app.graph.nodes.length > 0")
        yield page


def covered(drawn: list) -> list[tuple[str, str]]:
    return [
        (one[0], other[0])
        for number, one in enumerate(drawn)
        for other in drawn[:number]
        if one[1] < other[3] and other[1] < one[3] and one[2] < other[4] and other[2] < one[4]
    ]


def test_what_is_covered_is_seen() -> None:
    assert covered([["a", 0, 0, 10, 10], ["b", 9, 9, 20, 20], ["c", 30, 0, 40, 10]]) == [("b", "a")]


@pytest.mark.parametrize("vue", [False, True], ids=["canvas", "nodes-2.0"])
def test_no_node_covers_another(page: browser.Page, vue: bool, tmp_path: Path) -> None:
    found = {}
    for path in WORKFLOWS:
        browser.load_workflow(page, json.loads(path.read_text()))
        browser.choose_renderer(page, vue)
        page.screenshot(path=tmp_path / f"{path.stem}.png")
        found[path.stem] = covered(page.evaluate(DRAWN, [vue]))
    browser.choose_renderer(page, False)
    assert found == {path.stem: [] for path in WORKFLOWS}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_a_new_comfyui_lacks_is_offered_for_download(page: browser.Page, path: Path) -> None:
    workflow = json.loads(path.read_text())
    files = {
        value
        for node in workflow["nodes"]
        if node["type"] in ("CheckpointLoaderSimple", "LoadImage")
        for value in node["widgets_values"][:1]
    }
    models = [model for node in workflow["nodes"] for model in node["properties"].get("models", [])]
    offered = {model["name"]: model for model in models}
    if path.stem == "08-miniature-world":
        # Its files are made by a command that its note says.
        assert not offered and "python -m miniworld" in path.read_text()
        return
    assert files - {"example.png"} == set(offered) <= CHECKPOINTS
    assert all(model["directory"] == "checkpoints" and model["name"] in model["url"] for model in models)

    browser.load_workflow(page, workflow)
    (name,) = offered
    page.get_by_text(f"{name} is missing").or_(page.get_by_text("missing a required model")).first.wait_for()
    page.get_by_role("button", name="View details").first.click()
    page.get_by_text("Download", exact=False).first.wait_for()
    page.keyboard.press("Escape")
