"""Drives ComfyUI's own frontend in a headless Chromium."""

from __future__ import annotations

import contextlib
import io
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from . import chromium
from .server import ComfyServer, PromptResult

# Milliseconds; a machine that does other work too needs its time.
PATIENCE = 300_000
READY = "() => window.app?.isGraphReady && Object.keys(window.LiteGraph?.registered_node_types ?? {}).length > 100"
# Graphs are kept as texts within texts, each with backslashes of its own.
KEPT = r"""([text]) => {
    const plain = (words) => words.replaceAll("\\", "");
    const kept = [localStorage, sessionStorage].flatMap((store) => Object.values(store));
    return kept.some((each) => plain(each).includes(plain(JSON.stringify(text))));
}"""


@contextlib.contextmanager
def open_frontend(url: str, complaints: list[str] | None = None) -> Iterator[Page]:
    """Open the frontend of a running server and wait until its nodes are registered.

    Parameters
    ----------
    url : str
        Address of the server.
    complaints : list of str, optional
        Receives the console's errors with the address they come from, and uncaught errors (`uncaught: …`).
    """
    heard = [] if complaints is None else complaints
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.find(), args=["--no-sandbox", "--disable-background-networking"]
        )
        try:
            page = browser.new_context(viewport={"width": 1600, "height": 1000}).new_page()
            page.set_default_timeout(PATIENCE)
            page.on("pageerror", lambda error: heard.append(f"uncaught: {error}"))
            page.on(
                "console",
                lambda message: (
                    heard.append(f"{message.text} ({message.location.get('url', '')})")
                    if message.type == "error"
                    else None
                ),
            )
            page.goto(url)
            page.wait_for_function(READY)
            yield page
        finally:
            browser.close()


def load_workflow(page: Page, workflow: dict[str, Any]) -> list[str]:
    """Load a graph as the editor does when a file is dropped, and return the types of nodes that it does not know."""
    return page.evaluate(
        """async (workflow) => {
            await app.loadGraphData(workflow);
            return app.graph.nodes.map((node) => node.type).filter((type) => !LiteGraph.registered_node_types[type]);
        }""",
        workflow,
    )


def keep(page: Page, text: str) -> None:
    """Wait until the browser keeps the open graph, which has this text.

    Which of the browser's stores the editor uses, and when it writes, is its own affair.
    """
    # What a script changed the editor notices as it does after a person's next click.
    page.evaluate("() => app.extensionManager.workflow.activeWorkflow.changeTracker.checkState()")
    page.wait_for_function(KEPT, arg=[text])


def reload(page: Page, text: str) -> None:
    """Reload the page once the browser keeps the open graph, which has this text; the editor opens it again."""
    keep(page, text)
    nodes = page.evaluate("() => app.graph.nodes.length")
    page.reload()
    page.wait_for_function(READY)
    opened = "app.extensionManager.workflow.activeWorkflow && app.graph.nodes.length"
    page.wait_for_function(f"([count]) => ({opened}) === count", arg=[nodes])


def choose_renderer(page: Page, vue: bool) -> None:
    """Draw nodes as elements of the page (*Nodes 2.0*) or on the canvas, and wait until they have their sizes.

    The setting is kept on the server.
    """
    page.evaluate("([on]) => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", [vue])
    shown = "document.querySelectorAll('[data-node-id]').length"
    page.wait_for_function(f"([on]) => on ? {shown} >= app.graph.nodes.length : {shown} === 0", arg=[vue])
    page.wait_for_timeout(1500)


@contextlib.contextmanager
def rendering(page: Page, vue: bool) -> Iterator[Page]:
    """Draw nodes in one way while the block runs (see `choose_renderer`), and on the canvas afterwards."""
    choose_renderer(page, vue)
    try:
        yield page
    finally:
        choose_renderer(page, False)


def press_run(page: Page, server: ComfyServer) -> set[str]:
    """Press Run; return what had run before, for `finished`."""
    before = set(server.get("/history"))
    page.evaluate("async () => { await app.queuePrompt(0); }")
    return before


def finished(page: Page, server: ComfyServer, before: set[str]) -> PromptResult:
    """Wait until what was queued has run, while the page goes on with its own work, and return what became of it."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not (done := set(server.get("/history")) - before):
        assert time.monotonic() < deadline
        page.wait_for_timeout(200)
    (prompt_id,) = done
    return server.wait(prompt_id)


def painted(page: Page, server: ComfyServer, prefix: str) -> Image.Image:
    """Press Run; return the one picture that is saved under a name that begins so, with its metadata."""
    result = finished(page, server, press_run(page, server))
    assert result.ok, result
    (record,) = [
        image
        for output in result.outputs.values()
        for image in output.get("images", [])
        if image["type"] == "output" and image["filename"].startswith(prefix)
    ]
    with urllib.request.urlopen(f"{server.url}/view?{urllib.parse.urlencode(record)}", timeout=60) as answer:
        picture = Image.open(io.BytesIO(answer.read()))
        picture.load()
        return picture


def api_prompt(page: Page) -> dict[str, Any]:
    """Return the API-format prompt that the Run button would queue for the graph that is open."""
    return page.evaluate("async () => (await app.graphToPrompt()).output")
