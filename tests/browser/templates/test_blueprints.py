"""The blueprints as a person uses them: out of the node library into a graph, connected, and run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import safe_open

from support.locations import REPOSITORY
from support.server import PACK_FOLDER, ComfyServer, PromptResult

browser = pytest.importorskip("support.browser")

BLUEPRINTS = sorted((REPOSITORY / "subgraphs").glob("*.json"))
EMPTY = {"version": 0.4, "last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "groups": []}
SIDE = 64
# Every input gets what a person connects, and every output a node that shows it.
CONNECT = """([values]) => {
    const [node] = app.graph.nodes;
    const add = (type, pos, widgets = {}) => {
        const made = LiteGraph.createNode(type);
        made.pos = pos;
        app.graph.add(made);
        for (const [name, value] of Object.entries(widgets)) made.widgets.find((w) => w.name === name).value = value;
        return made;
    };
    const [x, y] = node.pos;
    const checkpoint = add("CheckpointLoaderSimple", [x - 800, y], { ckpt_name: "tiny.safetensors" });
    const sources = { model: [checkpoint, 0], clip: [checkpoint, 1], vae: [checkpoint, 2] };
    if (node.inputs.some((input) => input.name === "images")) {
        const photo = add("LoadImage", [x - 400, y], { image: "my-cat-1.png" });
        Object.assign(sources, { images: [photo, 0], mask: [photo, 1] });
    }
    node.inputs.filter((input) => !input.widget).forEach((input) => {
        const [source, slot] = sources[input.name];
        source.connect(slot, node, node.inputs.indexOf(input));
    });
    const viewers = { IMAGE: "PreviewImage", LOSS_MAP: "LossGraphNode" };
    node.outputs.forEach((output, slot) => {
        node.connect(slot, add(viewers[output.type] ?? "PreviewAny", [x + 500, y + 400 * slot]), 0);
    });
    for (const [name, value] of Object.entries(values)) node.widgets.find((w) => w.name === name).value = value;
}"""
SHOWN = """(type) => app.graph.nodes.filter((node) => node.type === type)
    .map((node) => (node.imgs ?? []).map((image) => [image.naturalWidth, image.naturalHeight]))"""


@pytest.fixture(scope="module")
def page(server: ComfyServer) -> Iterator[browser.Page]:
    with browser.open_frontend(server.url) as page:
        # The editor opens a graph of its own first.
        page.wait_for_function("() => app.graph.nodes.length > 0")
        yield page


def insert(page: browser.Page, name: str) -> None:
    """Find a blueprint by its name, and put it into an empty graph."""
    browser.load_workflow(page, EMPTY)
    page.locator("body").press("n")
    page.get_by_placeholder("Search", exact=False).first.fill(name)
    page.get_by_text(name, exact=True).first.click()
    page.mouse.click(1000, 500)
    page.wait_for_function("() => app.graph.nodes.length === 1")
    page.locator("body").press("n")


def run(page: browser.Page, server: ComfyServer, name: str, values: dict[str, object]) -> PromptResult:
    insert(page, name)
    page.evaluate(CONNECT, [values])
    result = browser.finished(page, server, browser.press_run(page, server))
    assert result.ok, result
    return result


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_a_blueprint_is_served_and_goes_into_a_graph(
    page: browser.Page, server: ComfyServer, path: Path, tmp_path: Path
) -> None:
    served = {key: entry for key, entry in server.get("/global_subgraphs").items() if entry["name"] == path.stem}
    ((key, entry),) = served.items()
    assert entry["info"]["node_pack"] == f"custom_nodes.{PACK_FOLDER}"
    assert json.loads(server.get(f"/global_subgraphs/{key}")["data"]) == json.loads(path.read_text())

    insert(page, path.stem)
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


def test_a_taught_word_is_composed_by_the_blueprints(page: browser.Page, server: ComfyServer, tmp_path: Path) -> None:
    word = "blueprint-cat"
    taught = run(page, server, "Teach a concept", {"name": word, "steps": 2})
    assert [f"embedding:{word}"] in [output.get("text") for output in taught.outputs.values()]
    with safe_open(server.base / "models" / "embeddings" / f"{word}.safetensors", "np") as file:
        assert file.metadata()["superclass"] == "cat"

    text, phrases = f"embedding:{word} cat and a ball", f"embedding:{word} cat\na ball"
    short = {"text": text, "phrases": phrases, "width": SIDE, "height": SIDE, "steps": 2}
    guided = run(page, server, "Compose two concepts", short)
    assert not guided.remarks
    # Pictures are loaded once their nodes are seen.
    look = """() => {
        app.canvas.ds.scale = 0.5;
        app.canvas.centerOnNode(app.graph.nodes.find((node) => node.type === "PreviewImage"));
    }"""
    page.evaluate(look)
    page.wait_for_function(f"() => ({SHOWN})('PreviewImage').flat().length === 5")
    # The drawn boxes, whose longer side always has 512 pixels, and four pictures of the size that was asked for.
    assert page.evaluate(SHOWN, "PreviewImage") == [[[512, 512]], [[SIDE, SIDE]] * 4]
    page.screenshot(path=tmp_path / "composed.png")
