"""Drives ComfyUI's own frontend in a headless Chromium."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Page, sync_playwright

from . import chromium

# Milliseconds; a machine that does other work too needs its time.
PATIENCE = 300_000
READY = "() => window.app?.isGraphReady && Object.keys(window.LiteGraph?.registered_node_types ?? {}).length > 100"


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
            page = browser.new_page(viewport={"width": 1600, "height": 1000})
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


def choose_renderer(page: Page, vue: bool) -> None:
    """Draw nodes as elements of the page (*Nodes 2.0*) or on the canvas, and wait until they have their sizes.

    The setting is kept on the server.
    """
    page.evaluate("([on]) => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", [vue])
    shown = "document.querySelectorAll('[data-node-id]').length"
    page.wait_for_function(f"([on]) => on ? {shown} >= app.graph.nodes.length : {shown} === 0", arg=[vue])
    page.wait_for_timeout(1500)


def api_prompt(page: Page) -> dict[str, Any]:
    """Return the API-format prompt that the Run button would queue for the graph that is open."""
    return page.evaluate("async () => (await app.graphToPrompt()).output")
