"""Each mistake shows its sentence on the node, in both renderers, and there again after a reload."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server import ComfyServer
from support.templates import mistakes
from support.templates.graph import Prompt

browser = pytest.importorskip("support.browser")

LOAD = """async ([prompt, type]) => {
    await app.loadApiJson(prompt, "mistake");
    // As a workflow of its own it gets an id.
    const workflow = app.graph.serialize();
    delete workflow.id;
    await app.loadGraphData(workflow);
    app.canvas.ds.scale = 1;
    app.canvas.centerOnNode(app.graph.nodes.find((node) => node.type === type));
    await app.queuePrompt(0);
}"""
HEIGHT = "([type]) => app.graph.nodes.find((node) => node.type === type).size[1]"
INTO_SUBGRAPH = """([type]) => {
    const node = app.graph.nodes.find((node) => node.type === type);
    app.graph.convertToSubgraph(new Set([node]));
}"""
WITHIN = """([type]) => [...app.rootGraph.subgraphs.values()].flatMap((graph) => graph.nodes)
    .find((node) => node.type === type)?.widgets.find((widget) => widget.name === "remarks")?.element.textContent"""
ENTER = """([type]) => {
    const inner = [...app.rootGraph.subgraphs.values()].find((graph) => graph.nodes.some((node) => node.type === type));
    app.canvas.setGraph(inner);
    app.canvas.ds.scale = 1;
    app.canvas.centerOnNode(inner.nodes.find((node) => node.type === type));
}"""
APPLY = "CompInvApplyLayoutGuidance"


@pytest.fixture(scope="module")
def complaints() -> list[str]:
    return []


@pytest.fixture(scope="module")
def page(server: ComfyServer, complaints: list[str]) -> Iterator[browser.Page]:
    mistakes.write_inputs(server.base)
    with browser.open_frontend(server.url, complaints) as page:
        yield page


@pytest.fixture(scope="module", params=["LiteGraph", "Nodes 2.0"])
def renderer(request: pytest.FixtureRequest, page: browser.Page) -> Iterator[browser.Page]:
    with browser.rendering(page, request.param == "Nodes 2.0"):
        yield page


def run(page: browser.Page, prompt: Prompt, node: str) -> None:
    page.evaluate(LOAD, [prompt, node])


def shown(page: browser.Page, sentence: str) -> browser.Page:
    line = page.locator(".compinv-remarks div", has_text=sentence).first
    line.wait_for(state="visible")
    return line


@pytest.mark.parametrize("name", mistakes.MISTAKES)
def test_a_mistake_shows_on_its_node(renderer: browser.Page, name: str, tmp_path: Path) -> None:
    mistake = mistakes.MISTAKES[name]()
    run(renderer, mistake.prompt, mistake.node)
    assert shown(renderer, mistake.sentence).inner_text().startswith(mistake.sign)
    renderer.screenshot(path=tmp_path / f"{name}.png")


def test_it_is_there_after_a_reload_and_goes_with_the_mistake(
    renderer: browser.Page, complaints: list[str], tmp_path: Path
) -> None:
    mistake = mistakes.MISTAKES["no step in range"]()
    run(renderer, mistake.prompt, APPLY)
    shown(renderer, mistake.sentence)
    renderer.reload()
    renderer.wait_for_function(browser.READY)
    shown(renderer, mistake.sentence)
    renderer.screenshot(path=tmp_path / "reloaded.png")

    run(renderer, mistakes.guided(), APPLY)
    renderer.wait_for_function("() => !document.querySelector('.compinv-remarks')")
    assert not [complaint for complaint in complaints if "compinv" in complaint.lower()]


def test_it_shows_on_a_node_within_a_subgraph(renderer: browser.Page, tmp_path: Path) -> None:
    mistake = mistakes.MISTAKES["without class"]()
    renderer.evaluate(LOAD.replace("await app.queuePrompt(0);", ""), [mistake.prompt, APPLY])
    renderer.evaluate(INTO_SUBGRAPH, [APPLY])
    renderer.evaluate("async () => { await app.queuePrompt(0); }")
    renderer.wait_for_function(
        f"([type, sentence]) => ({WITHIN})([type])?.includes(sentence)", arg=[APPLY, mistake.sentence]
    )
    # The node is in the subgraph, and the person who opens that sees the sentence.
    assert renderer.locator(".compinv-remarks:visible").count() == 0
    renderer.evaluate(ENTER, [APPLY])
    assert shown(renderer, mistake.sentence).inner_text().startswith(mistake.sign)
    renderer.screenshot(path=tmp_path / "subgraph.png")
    renderer.evaluate("() => app.canvas.setGraph(app.rootGraph)")
