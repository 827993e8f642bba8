"""The nodes in the languages of the frontend, and the help panel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from support.languages import build_locales
from support.locations import REPOSITORY
from support.server import ComfyServer

browser = pytest.importorskip("support.browser")

HELP = REPOSITORY / "web" / "docs"
LANGUAGE = "([language]) => app.extensionManager.setting.set('Comfy.Locale', language)"
ADD = """([type]) => {
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    app.canvas.ds.scale = 0.6;
    app.canvas.centerOnNode(node);
    app.canvas.setDirty(true, true);
    return [node.title, node.inputs.map((input) => [input.name, input.label ?? input.localized_name])];
}"""
TITLE = """() => {
    const [node] = app.graph.nodes, { scale, offset } = app.canvas.ds, box = app.canvas.canvas.getBoundingClientRect();
    const at = [node.pos[0] + 80, node.pos[1] - LiteGraph.NODE_TITLE_HEIGHT / 2];
    return [box.left + (at[0] + offset[0]) * scale, box.top + (at[1] + offset[1]) * scale];
}"""
EMPTY = {"version": 0.4, "last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "groups": []}


@pytest.fixture(scope="module")
def page(server: ComfyServer) -> Iterator[browser.Page]:
    with browser.open_frontend(server.url) as page:
        page.set_default_timeout(90_000)
        # Leaving a changed graph is asked about.
        page.on("dialog", lambda dialog: dialog.accept())
        yield page
        page.evaluate(LANGUAGE, ["en"])


def in_language(page: browser.Page, language: str) -> None:
    page.evaluate(LANGUAGE, [language])
    # The setting is sent to the server.
    page.wait_for_timeout(2000)
    page.reload()
    page.wait_for_function(browser.READY)
    # The editor opens what was open before, or a graph of its own, and a moment later.
    page.wait_for_timeout(4000)
    browser.load_workflow(page, EMPTY)


# The editor itself has no German yet.
@pytest.mark.parametrize("language", [each for each in build_locales.LANGUAGES if each != "de"])
def test_names_of_nodes_and_inputs_are_shown_in_the_language(page: browser.Page, language: str, tmp_path: Path) -> None:
    in_language(page, language)
    known = build_locales.translation(language)
    title, labels = page.evaluate(ADD, ["CompInvTrainConcept"])
    page.wait_for_timeout(500)
    page.screenshot(path=tmp_path / f"{language}.png")
    assert title == known["texts"]["Train Concept"]
    assert dict(labels)["anchors"] == known["names"]["anchors"]


@pytest.mark.parametrize("node", ["CompInvTrainConcept", "CompInvApplyLayoutGuidance"])
def test_the_help_panel_shows_the_nodes_page(page: browser.Page, node: str, tmp_path: Path) -> None:
    in_language(page, "en")
    page.evaluate(ADD, [node])
    page.wait_for_timeout(1000)
    page.mouse.click(*page.evaluate(TITLE))
    page.locator('[data-testid="selection-toolbox"] button:has(i[class*="info"])').first.click()
    page.get_by_text("When it fails").first.wait_for()
    # The first line of prose, as it is shown.
    lines = re.sub(r"[*`]", "", (HELP / f"{node}.md").read_text()).splitlines()
    assert next(line for line in lines if line and line[0] not in "#!") in page.locator("body").inner_text()
    picture = page.locator(f'img[src*="{node}"]').first
    picture.scroll_into_view_if_needed()
    page.wait_for_function("(image) => image.complete && image.naturalWidth > 0", arg=picture.element_handle())
    with Image.open(HELP / f"{node}.jpg") as file:
        assert picture.evaluate("(image) => [image.naturalWidth, image.naturalHeight]") == list(file.size)
    page.screenshot(path=tmp_path / f"{node}.png")
