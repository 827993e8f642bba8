"""A training on its node in the real frontend: live, stopped, after a reload, and with a saved step as its result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import safe_open

from support.server import ComfyServer

browser = pytest.importorskip("support.browser")

# Two trainings that would take hours, side by side. Their words begin far from the only anchor, and have to move there.
BUILD = """([first, second]) => {
    app.graph.clear();
    const add = (type, pos, values = {}) => {
        const node = LiteGraph.createNode(type);
        node.pos = pos;
        app.graph.add(node);
        for (const [name, value] of Object.entries(values)) node.widgets.find((w) => w.name === name).value = value;
        return node;
    };
    const load = add("CheckpointLoaderSimple", [0, 0], { ckpt_name: "tiny.safetensors" });
    const photos = add("EmptyImage", [0, 200], { width: 64, height: 64, batch_size: 2 });
    const anchors = add("CompInvLoadAnchors", [0, 400], { vocabulary: "none", extra_words: "cat" });
    load.connect(1, anchors, 0);
    for (const [place, name] of [first, second].entries()) {
        const train = add("CompInvTrainConcept", [350 + 450 * place, 0], {
            name, superclass: "cat", steps: 5000, batch_size: 1, save_every: 1, preview_every: 2,
            init_word: "boat", hold: "anchor loss", anchor_reduction: "sum",
        });
        [0, 1, 2].forEach((slot) => load.connect(slot, train, slot));
        photos.connect(0, train, 3);
        anchors.connect(0, train, train.inputs.findIndex((input) => input.name === "anchors"));
    }
}"""
LOOK = """(scale) => {
    Object.assign(app.canvas.ds, { scale, offset: [60 / scale, (scale < 0.7 ? 80 : -280) / scale] });
    app.canvas.setDirty(true, true);
}"""
# The training of a name, also within a subgraph.
FIND = """const find = (name, graph = app.graph) => graph.nodes.flatMap((node) => node.subgraph
        ? [find(name, node.subgraph)].filter(Boolean)
        : node.widgets?.some((w) => w.name === "name" && w.value === name) ? [node] : [])[0];"""
SHOWN = f"""(name) => {{
    {FIND}
    const panel = find(name).widgets.find((w) => w.name === "training").element;
    return {{
        text: panel.querySelector(".text").textContent,
        curves: [...panel.querySelectorAll("polyline")].map((line) => line.getAttribute("class")),
        fallen: [...panel.querySelectorAll("polyline")].filter((line) => {{
            const down = line.getAttribute("points").split(" ").map((point) => Number(point.split(",")[1]));
            return down.at(-1) > down[0];
        }}).map((line) => line.getAttribute("class")),
        points: panel.querySelector("polyline")?.getAttribute("points").split(" ").length ?? 0,
        steps: [...panel.querySelectorAll("button")].map((button) => Number(button.dataset.step)),
        chosen: [...panel.querySelectorAll("button[aria-pressed=true]")].map((button) => Number(button.dataset.step)),
        pictures: [...panel.querySelectorAll("img")].filter((image) => image.naturalWidth === 64).length,
        best: panel.querySelectorAll("button.best").length,
        height: panel.getBoundingClientRect().height,
    }};
}}"""
SAVED_STEP = f"(name) => {{ {FIND} return find(name).widgets.find((w) => w.name === 'saved_step').value; }}"
MODE = f"([name, mode]) => {{ {FIND} find(name).mode = mode; }}"
NEVER, ALWAYS = 2, 0
CURVES = ["loss", "reconstruction", "anchor", "distance", "composition"]


@pytest.fixture(params=[False, True], ids=["litegraph", "vue"])
def page(server: ComfyServer, request: pytest.FixtureRequest, complaints: list[str]) -> Iterator[browser.Page]:
    with browser.open_frontend(server.url, complaints) as page, browser.rendering(page, request.param):
        yield page


@pytest.fixture
def complaints() -> list[str]:
    return []


def run_and_stop(page: browser.Page, server: ComfyServer, names: tuple[str, str]) -> str:
    """Queue, wait until one of the trainings shows a curve and a saved step, press stop; return which it was."""
    before = browser.press_run(page, server)
    running = f"(names) => names.find((name) => /: [3-9] of 5000|: \\d\\d+ of 5000/.test(({SHOWN})(name).text))"
    name = page.wait_for_function(running, arg=list(names)).json_value()
    shown = page.evaluate(SHOWN, name)
    assert shown["points"] >= 2 and {"loss", "anchor"} <= set(shown["fallen"])
    server.interrupt()
    assert browser.finished(page, server, before).interrupted
    page.wait_for_function(f"(name) => ({SHOWN})(name).text.startsWith('Stopped at')", arg=name)
    return name


def test_a_training_is_seen_stopped_reloaded_and_a_step_of_it_chosen(
    page: browser.Page, server: ComfyServer, complaints: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    kind = request.node.callspec.id
    names = (f"seen-{kind}", f"other-{kind}")
    page.evaluate(BUILD, list(names))
    page.evaluate(LOOK, 0.75)

    # Live, and of the one that runs alone.
    first = run_and_stop(page, server, names)
    (other,) = set(names) - {first}
    shown = page.evaluate(SHOWN, first)
    assert shown["curves"] == CURVES
    assert shown["steps"][:2] == [0, 1] and len(shown["steps"]) > 2
    step = shown["steps"][2]
    assert page.evaluate(SHOWN, other)["text"] == "" and page.evaluate(SHOWN, other)["height"] == 0
    page.evaluate(MODE, [first, NEVER])
    assert run_and_stop(page, server, names) == other
    assert page.evaluate(SHOWN, first) == {**shown, "height": page.evaluate(SHOWN, first)["height"]}
    page.screenshot(path=tmp_path / f"stopped-{kind}.png")

    # After a reload, and in a copy.
    browser.reload(page, first)
    page.evaluate(MODE, [first, ALWAYS])
    page.evaluate(MODE, [other, NEVER])
    browser.keep(page, first)
    run = server.post("/compinv/run", {"method": "textual inversion", "name": first})
    pictures = sum(saved["picture"] is not None for saved in run["saved"])
    page.wait_for_function(
        f"([name, pictures]) => ({SHOWN})(name).points > 1 && ({SHOWN})(name).pictures === pictures",
        arg=[first, pictures],
    )
    again = page.evaluate(SHOWN, first)
    assert {**again, "pictures": 0, "height": 0} == {**shown, "pictures": 0, "height": 0}
    assert again["chosen"] == [0] and again["height"] > 100
    copied = page.evaluate(
        f"(name) => {{ {FIND} const copy = find(name).clone(); app.graph.add(copy); copy.mode = 2; return copy.id; }}",
        first,
    )
    panel = "(id) => app.graph.getNodeById(id).widgets.find((w) => w.name === 'training').element"
    page.wait_for_function(f"(id) => ({panel})(id).querySelectorAll('polyline').length === 5", arg=copied)
    page.evaluate("(id) => app.graph.remove(app.graph.getNodeById(id))", copied)

    page.evaluate(LOOK, 0.5)
    # A saved step is chosen by the keyboard, taken back, chosen again, and used from within a subgraph.
    button = page.locator(f".compinv-training[data-run='{first}'] button[data-step='{step}']")
    button.focus()
    page.keyboard.press("Enter")
    assert page.evaluate(SAVED_STEP, first) == step and page.evaluate(SHOWN, first)["chosen"] == [step]
    page.screenshot(path=tmp_path / f"chosen-{kind}.png")
    page.evaluate("async () => { await app.extensionManager.workflow.activeWorkflow.changeTracker.undo(); }")
    assert page.evaluate(SAVED_STEP, first) == 0
    page.wait_for_function(f"(name) => ({SHOWN})(name).steps.length > 2", arg=first)
    page.evaluate(LOOK, 0.5)
    button.click()
    page.evaluate(f"(name) => {{ {FIND} app.graph.convertToSubgraph(new Set([find(name)])); }}", first)
    page.wait_for_function(f"([name, step]) => ({SHOWN})(name).chosen[0] === step", arg=[first, step])
    (asked,) = [each["inputs"] for each in browser.api_prompt(page).values() if each["inputs"].get("name") == first]
    assert asked["saved_step"] == step
    result = browser.finished(page, server, browser.press_run(page, server))
    assert result.ok, result
    assert [key for key in result.outputs if ":" in key]
    with safe_open(server.base / "models" / "embeddings" / f"{first}.safetensors", "pt") as file:
        assert file.metadata()["kept_step"] == str(step)
    assert page.evaluate(SHOWN, first)["steps"] == again["steps"]
    assert not [complaint for complaint in complaints if "compinv" in complaint or complaint.startswith("uncaught")]


@pytest.mark.parametrize("page", [False], ids=["litegraph"], indirect=True)
def test_another_tab_and_a_restarted_server_show_what_was_there(
    page: browser.Page, server: ComfyServer, tmp_path: Path
) -> None:
    names = ("tabs", "tabs-other")
    page.evaluate(BUILD, list(names))
    page.evaluate(MODE, [names[1], NEVER])
    page.evaluate(LOOK, 0.75)
    browser.keep(page, names[0])
    before = browser.press_run(page, server)
    page.wait_for_function(f"(name) => ({SHOWN})(name).points > 2", arg=names[0])

    # The other tab opens what was open last, in the middle of the training, and follows it.
    tab = page.context.new_page()
    tab.set_default_timeout(browser.PATIENCE)
    tab.goto(server.url)
    tab.wait_for_function(browser.READY)
    tab.wait_for_function("() => app.graph.nodes.length === 5")
    tab.wait_for_function(f"(name) => ({SHOWN})(name).points > 2", arg=names[0])
    seen = tab.evaluate(SHOWN, names[0])
    assert "of 5000" in seen["text"] and len(seen["steps"]) > 1
    tab.wait_for_function(f"([name, points]) => ({SHOWN})(name).points > points + 1", arg=[names[0], seen["points"]])
    tab.screenshot(path=tmp_path / "second-tab.png")
    server.interrupt()
    assert browser.finished(page, server, before).interrupted
    for each in (page, tab):
        each.wait_for_function(f"(name) => ({SHOWN})(name).text.startsWith('Stopped at')", arg=names[0])
    kept = ("text", "curves", "points", "steps", "best")
    shown = page.evaluate(SHOWN, names[0])
    assert shown["curves"] == CURVES and {"loss", "anchor"} <= set(shown["fallen"])
    assert {key: tab.evaluate(SHOWN, names[0])[key] for key in kept} == {key: shown[key] for key in kept}
    tab.close()

    # A restarted server has the address that the browser knows it by.
    server.stop()
    server.start(port=server.port)
    page.reload()
    page.wait_for_function(browser.READY)
    page.wait_for_function("() => app.graph.nodes.length === 5")
    page.wait_for_function(f"([name, points]) => ({SHOWN})(name).points === points", arg=[names[0], shown["points"]])
    assert {key: page.evaluate(SHOWN, names[0])[key] for key in kept} == {key: shown[key] for key in kept}
    page.wait_for_function(f"(name) => ({SHOWN})(name).pictures > 0", arg=names[0])
    assert page.evaluate(SHOWN, names[1])["text"] == ""
    page.screenshot(path=tmp_path / "restarted.png")
