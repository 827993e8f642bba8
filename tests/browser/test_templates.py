"""Templates and blueprints as a person meets them: nothing covered, downloads offered, blueprints at hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.locations import REPOSITORY
from support.server import PACK_FOLDER, ComfyServer

browser = pytest.importorskip("support.browser")

WORKFLOWS = sorted((REPOSITORY / "workflows").glob("*.json"))
BLUEPRINTS = sorted((REPOSITORY / "subgraphs").glob("*.json"))
CHECKPOINTS = {"v1-5-pruned-emaonly-fp16.safetensors", "sd_xl_base_1.0.safetensors"}
EMPTY = {"version": 0.4, "last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "groups": []}
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


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_a_blueprint_is_served_and_goes_into_a_graph(
    page: browser.Page, bare_server: ComfyServer, path: Path, tmp_path: Path
) -> None:
    served = {key: entry for key, entry in bare_server.get("/global_subgraphs").items() if entry["name"] == path.stem}
    ((key, entry),) = served.items()
    assert entry["info"]["node_pack"] == f"custom_nodes.{PACK_FOLDER}"
    assert json.loads(bare_server.get(f"/global_subgraphs/{key}")["data"]) == json.loads(path.read_text())

    browser.load_workflow(page, EMPTY)
    page.locator("body").press("n")
    page.get_by_placeholder("Search", exact=False).first.fill(path.stem)
    page.get_by_text(path.stem, exact=True).first.click()
    page.mouse.click(1000, 500)
    page.wait_for_function("() => app.graph.nodes.length === 1")
    page.locator("body").press("n")
    page.screenshot(path=tmp_path / "inserted.png")
    described = json.loads(path.read_text())["definitions"]["subgraphs"][0]
    seen = page.evaluate(
        """() => {
            const [node] = app.graph.nodes, inner = node.subgraph.nodes;
            return {
                unknown: inner.filter((each) => !LiteGraph.registered_node_types[each.type]).map((each) => each.type),
                types: inner.map((each) => each.type).sort(),
                widgets: node.widgets.map((widget) => [widget.name, widget.value]),
            };
        }"""
    )
    assert seen["unknown"] == []
    assert seen["types"] == sorted(node["type"] for node in described["nodes"])
    widgets = dict(seen["widgets"])
    if "Teach" in path.stem:
        assert widgets["name"] == "my-cat" and widgets["superclass"] == "cat"
    else:
        assert "my-cat" in widgets["text"] and "\n" in widgets["phrases"]
