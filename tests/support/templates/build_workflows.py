"""Builds the templates in workflows/ and the blueprints in subgraphs/, with ComfyUI's own frontend.

The frontend, not this script, decides how a graph is written, so the files are what the editor would save. Run it after
a change of a node's inputs: `python tests/support/templates/build_workflows.py`, with names of templates or blueprints
to build only those. Their pictures are made by `thumbnails.py`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from playwright.sync_api import Page

from support import browser, locations
from support.server import ComfyServer
from support.templates.blueprints import BLUEPRINTS, Blueprint
from support.templates.first_workflows import CHECKPOINT, FIRST_WORKFLOWS, PHOTO, Node
from support.templates.layout_workflows import LAYOUT_WORKFLOWS
from support.templates.miniature_workflow import miniature_workflow
from support.templates.sdxl_workflows import CHECKPOINT as SDXL_CHECKPOINT
from support.templates.sdxl_workflows import sdxl_workflows
from support.templates.tuning_workflows import TUNING_WORKFLOWS

WORKFLOWS = {**FIRST_WORKFLOWS, **LAYOUT_WORKFLOWS, **TUNING_WORKFLOWS, "08-miniature-world": miniature_workflow()}
WORKFLOWS |= sdxl_workflows(WORKFLOWS)

CATEGORY = "compositional inversion"
HUB = "https://huggingface.co"
# By these the host offers the download of a checkpoint that is not there, as in templates of its own.
MODELS = {
    CHECKPOINT: f"{HUB}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/{CHECKPOINT}",
    SDXL_CHECKPOINT: f"{HUB}/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/{SDXL_CHECKPOINT}",
}

BUILD = """async ([nodes, models]) => {
    await app.loadGraphData({version: 0.4, last_node_id: 0, last_link_id: 0, nodes: [], links: [], groups: []});
    const made = window.made = {};
    for (const [key, [type, title, pos, size, widgets]] of nodes) {
        const node = LiteGraph.createNode(type);
        if (!node) throw new Error(`no node ${type}`);
        app.graph.add(node);
        node.pos = pos;
        if (title) node.title = title;
        for (const [name, value] of Object.entries(widgets)) {
            const widget = name ? node.widgets.find((w) => w.name === name) : node.widgets[0];
            if (!widget) throw new Error(`${type} has no widget ${name}`);
            widget.value = value;
            if (models[value]) node.properties.models = [{name: value, url: models[value], directory: "checkpoints"}];
        }
        node.setSize(size);
        made[key] = node;
    }
    for (const [key, [type, , , , , links]] of nodes) {
        for (const [input, [source, output]] of Object.entries(links)) {
            const slot = made[key].inputs.findIndex((i) => i.name === input);
            if (slot < 0) throw new Error(`${type} has no input ${input}`);
            const link = made[source].connect(output, made[key], slot);
            if (!link) throw new Error(`${source} does not fit ${key}.${input}`);
        }
    }
    if (app.graph.nodes.length !== nodes.length) throw new Error("the editor's own first graph came in between");
}"""

# Nodes of both renderers: what overlaps moves down.
ARRANGE = """([sizes]) => {
    const gap = 30, title = LiteGraph.NODE_TITLE_HEIGHT, placed = [];
    for (const node of app.graph.nodes) node.setSize(sizes[node.id]);
    for (const node of [...app.graph.nodes].sort((a, b) => a.pos[1] - b.pos[1])) {
        let y = node.pos[1], moved = true;
        while (moved) {
            moved = false;
            for (const [left, top, right, bottom] of placed) {
                const beside = node.pos[0] >= right || node.pos[0] + node.size[0] <= left;
                const free = y - title >= bottom + gap || y + node.size[1] <= top;
                if (!beside && !free) [y, moved] = [bottom + gap + title, true];
            }
        }
        node.pos = [node.pos[0], Math.ceil(y / 10) * 10];
        placed.push([node.pos[0], node.pos[1] - title, node.pos[0] + node.size[0], node.pos[1] + node.size[1]]);
    }
}"""
SIZES = "() => Object.fromEntries(app.graph.nodes.map((node) => [node.id, [...node.size]]))"
SERIALIZE = """() => {
    const graph = app.graph.serialize();
    delete graph.id;
    delete graph.extra.ds;
    return JSON.stringify(graph);
}"""

ENCLOSE = """([name, inside, widgets]) => {
    const ids = Object.fromEntries(inside.map((key) => [key, made[key].id]));
    const { subgraph, node } = app.graph.convertToSubgraph(new Set(inside.map((key) => made[key])));
    for (const other of [...app.graph.nodes]) if (other !== node) app.graph.remove(other);
    subgraph.name = node.title = name;
    // The editor shows some widgets of its own choice.
    const own = [...subgraph.inputs].filter((input) => /^(STRING|INT|FLOAT|COMBO)$/.test(input.type));
    for (const input of own) subgraph.removeInput(input);
    for (const [key, widget] of widgets) {
        const kept = subgraph.nodes.find((each) => String(each.id) === String(ids[key]));
        if (!kept?.widgets?.some((each) => each.name === widget)) throw new Error(`${key} has no widget ${widget}`);
    }
    node.properties.proxyWidgets = widgets.map(([key, widget]) => [String(ids[key]), widget]);
}"""


def measured(page: Page) -> dict[str, list[float]]:
    """The sizes of the open graph's nodes: the greater of both renderers."""
    sizes = []
    for vue in (False, True):
        browser.choose_renderer(page, vue)
        sizes.append(page.evaluate(SIZES))
    browser.choose_renderer(page, False)
    return {key: [max(pair) for pair in zip(*(each[key] for each in sizes), strict=True)] for key in sizes[0]}


def build(page: Page, nodes: dict[str, Node]) -> None:
    """Make a graph in the editor, in which no node covers another."""
    browser.choose_renderer(page, False)
    page.evaluate(BUILD, [list(nodes.items()), MODELS])
    page.evaluate(ARRANGE, [measured(page)])


def template(page: Page, nodes: dict[str, Node]) -> dict[str, Any]:
    """Build a template."""
    build(page, nodes)
    return json.loads(page.evaluate(SERIALIZE))


def blueprint(page: Page, name: str, described: Blueprint) -> dict[str, Any]:
    """Build a blueprint: one node, and what is in it."""
    build(page, described.nodes)
    inside = [key for key in described.nodes if key not in described.outside]
    page.evaluate(ENCLOSE, [name, inside, [list(widget) for widget in described.widgets]])
    graph = json.loads(page.evaluate(SERIALIZE))
    # The values are those of the nodes inside.
    graph["nodes"][0]["widgets_values"] = []
    graph["definitions"]["subgraphs"][0] |= {"description": described.description, "category": CATEGORY}
    return graph


def main() -> None:
    """Rebuild what is named on the command line, or all."""
    wanted = sys.argv[1:] or [*WORKFLOWS, *BLUEPRINTS]
    with tempfile.TemporaryDirectory() as base:
        server = ComfyServer(Path(base))
        for name in (PHOTO, *(f"my-cat-{number}.png" for number in (1, 2, 3))):
            (server.base / "input" / name).touch()
        for name in (CHECKPOINT, SDXL_CHECKPOINT, "miniworld.safetensors"):
            (server.base / "models" / "checkpoints" / name).touch()
        server.start()
        try:
            with browser.open_frontend(server.url) as page:
                for name in wanted:
                    if name in WORKFLOWS:
                        folder, graph = "workflows", template(page, WORKFLOWS[name])
                    else:
                        folder, graph = "subgraphs", blueprint(page, name, BLUEPRINTS[name])
                    path = locations.REPOSITORY / folder / f"{name}.json"
                    path.parent.mkdir(exist_ok=True)
                    path.write_text(json.dumps(graph, indent=2, ensure_ascii=False) + "\n")
                    print(f"{path.name}: {len(graph['nodes'])} nodes")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
