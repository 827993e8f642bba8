"""The prompt's tokens as chips on Apply Layout Guidance and Record Attention, in both renderers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from support.server import ComfyServer

browser = pytest.importorskip("support.browser")
build = pytest.importorskip("support.templates.build_workflows").BUILD

GRAPH = {
    "text": ("PrimitiveStringMultiline", "", (0, 0), (300, 100), {"value": ""}, {}),
    "layout": ("CompInvLayoutFromBoxes", "", (0, 300), (300, 500), {}, {}),
    "guidance": (
        "CompInvApplyLayoutGuidance", "", (400, 0), (500, 600), {}, {"text": ("text", 0), "layout": ("layout", 0)}
    ),
    "record": ("CompInvRecordAttention", "", (1000, 0), (400, 500), {}, {"layout": ("layout", 0)}),
}  # fmt: skip
SET = """([type, name, value]) => {
    const node = app.graph.nodes.find((each) => each.type === type);
    node.widgets.find((widget) => widget.name === name).value = value;
}"""
# The chips of each chunk: text and phrase, -1 for none.
CHIPS = """(number) => [...document.querySelectorAll(".compinv-tokens")[number].querySelectorAll("[data-chunk]")].map(
    (chunk) => [...chunk.querySelectorAll(".compinv-chip")].map(
        (chip) => [chip.firstChild.textContent, Number(chip.dataset.phrase ?? -1)]))"""
SAID = """(number) => document.querySelectorAll(".compinv-tokens")[number].querySelector("[role=status]").innerText"""
LONG = "very " * 72
# Prompt, phrases, the tokens that each phrase caught, and what is said.
PROMPTS = [
    ("a (red cat:1.3) and a ball", "red cat\na ball", [["red", "cat"], ["a", "ball"]], ""),
    ("a ((cat)) by (a (red ball:.5):1.1)", "a cat\nred ball", [["a", "cat"], ["red", "ball"]], ""),
    (r"a cat \(red\) by a ball", "a cat \\(red\\)\nball", [["a", "cat", "(", "red", ")"], ["ball"]], ""),
    ("a café and a ball", "a café\na ball", [["a", "café"], ["a", "ball"]], ""),
    ('a "cat", a ball!', "a cat\na ball", [["a", "cat"], ["a", "ball"]], ""),
    (f"cat {LONG}a teddy bear sits", "a teddy bear\ncat", [["a", "teddy", "bear"], ["cat"]], ""),
    ("a hot dog and a teddy bear", "hot dog\nteddy bear", [["hot", "dog"], ["teddy", "bear"]], ""),
    ("embedding:chip dog, a ball", "embedding:chip dog\na ball", [["chip 1/2", "chip 2/2", "dog"], ["a", "ball"]], ""),
    ("embedding:chip-no dog, a ball", "chip-no dog\na ball", [[], ["a", "ball"]], 'needs the embedding "chip-no"'),
    ("a cat and a cat", "a cat", [["a", "cat", "a", "cat"]], ""),
    ("a cat and a {red|blue} ball", "a dog\na cat", [[], ["a", "cat"]], "as it is typed"),
]


@pytest.fixture(scope="module", params=[False, True], ids=["LiteGraph", "Vue"])
def page(request: pytest.FixtureRequest, server: ComfyServer) -> Iterator[browser.Page]:
    vectors = torch.randn(2, 768, generator=torch.Generator().manual_seed(2)) * 0.0137
    save_file({"chip": vectors}, str(server.base / "models" / "embeddings" / "chip.safetensors"))
    complaints: list[str] = []
    with browser.open_frontend(server.url, complaints) as page, browser.rendering(page, request.param):
        page.evaluate(build, [list(GRAPH.items()), {}])
        page.evaluate("() => { app.canvas.ds.scale = 1; app.canvas.ds.offset = [100, 100]; }")
        page.locator(".compinv-tokens").nth(1).wait_for()
        yield page
    assert not [each for each in complaints if "compinv" in each.lower() or each.startswith("uncaught")]


def ask(page: browser.Page, text: str, phrases: str) -> None:
    page.evaluate(SET, ["PrimitiveStringMultiline", "value", text])
    page.evaluate(SET, ["CompInvRecordAttention", "text", text])
    page.evaluate(SET, ["CompInvLayoutFromBoxes", "phrases", phrases])


@pytest.mark.parametrize(("text", "phrases", "caught", "said"), PROMPTS, ids=lambda value: None)
def test_chips_mark_the_tokens_of_each_phrase(
    page: browser.Page, text: str, phrases: str, caught: list[list[str]], said: str
) -> None:
    ask(page, text, phrases)
    # The text comes over a link on one node, and the phrases from the layout on both.
    for number in (0, 1):
        wanted = f"([said, caught]) => ({SAID})({number}).includes(said) && caught.every((words, phrase) => "
        wanted += f"words.join() === ({CHIPS})({number}).flat().filter((c) => c[1] === phrase).map((c) => c[0]).join())"
        page.wait_for_function(wanted, arg=[said, caught], timeout=60_000)
    if not said:
        assert page.evaluate(SAID, 0) == page.evaluate(SAID, 1) == ""
    chunks = page.evaluate(CHIPS, 0)
    assert len(chunks) == (2 if text.startswith("cat very") else 1)


def test_a_node_keeps_the_height_that_a_person_gave_it(page: browser.Page) -> None:
    """While the prompt is edited, and over a reload; folding the chips makes it as small as it may be."""
    height = "() => app.graph.nodes.find((node) => node.type === 'CompInvRecordAttention').size[1]"
    larger = height.replace(".size[1]", ".setSize([400, 950])")
    for text in ("a cat and a large ball", "a cat and a larger ball"):
        ask(page, text, "a cat\na ball")
        shown = f"(word) => ({CHIPS})(1).flat().some((chip) => chip[0] === word)"
        page.wait_for_function(shown, arg=text.split()[-2])
        if text.endswith("large ball"):
            page.evaluate(larger)
    assert page.evaluate(height) >= 950
    browser.reload(page, text)
    page.wait_for_function(shown, arg="larger")
    assert page.evaluate(height) >= 950
    page.locator(".compinv-tokens button").nth(1).click()
    page.wait_for_function(f"() => ({height})() < 800")
    page.locator(".compinv-tokens button").nth(1).click()


def test_chips_are_there_again_after_a_reload(page: browser.Page, tmp_path: Path) -> None:
    text = "a cat (beside:1.2) a ball"
    ask(page, text, "a cat\na ball")
    browser.reload(page, text)
    expected = [[["a", 0], ["cat", 0], ["beside", -1], ["a", 1], ["ball", 1]]]
    page.wait_for_function(f"([chips]) => JSON.stringify(({CHIPS})(0)) === JSON.stringify(chips)", arg=[expected])
    page.screenshot(path=tmp_path / "chips.png")
    # What was open stays open; a workflow from before the chips opens with them folded.
    assert page.locator(".compinv-tokens .compinv-chip:visible").count() == 10
    old = """async () => {
        const graph = app.graph.serialize();
        for (const node of graph.nodes) delete node.properties.compinv_tokens;
        await app.loadGraphData(graph);
    }"""
    page.evaluate(old)
    page.locator(".compinv-tokens").nth(1).wait_for()
    assert page.locator(".compinv-tokens .compinv-chip:visible").count() == 0
    page.locator(".compinv-tokens button").first.click()
    page.wait_for_function(f"([chips]) => JSON.stringify(({CHIPS})(0)) === JSON.stringify(chips)", arg=[expected])
