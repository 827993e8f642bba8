"""From the opened editor to the first composed picture of one's own cat, click by click, as the README has it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from support import pictures
from support.locations import REPOSITORY
from support.server import PACK_FOLDER, ComfyServer

browser = pytest.importorskip("support.browser")

# Keeps the test short; a person leaves these as they are.
SMALL = """([side]) => {
    const set = (type, values) => app.graph.nodes.filter((node) => node.type === type).forEach((node) =>
        Object.entries(values).forEach(
            ([name, value]) => { node.widgets.find((w) => w.name === name).value = value; }));
    set("ImageScale", {width: side, height: side});
    set("CompInvTrainConcept", {steps: 2, batch_size: 1});
    set("EmptyLatentImage", {batch_size: 1});
    set("KSampler", {steps: 2});
    set("PrimitiveInt", {value: side});
}"""
SIDE = 64


class Person:
    """Clicks, and counts the clicks."""

    def __init__(self, page: browser.Page, server: ComfyServer) -> None:
        self.page, self.server, self.clicks = page, server, 0

    def click(self, place: browser.Locator) -> None:
        place.click()
        self.clicks += 1

    def open_template(self, name: str) -> None:
        self.click(self.page.get_by_role("button", name="Templates").first)
        self.click(self.page.get_by_text(PACK_FOLDER).first)
        self.click(self.page.get_by_test_id(f"template-workflow-{name}"))
        kind = "CompInvTrainConcept" if name.startswith("01") else "CompInvLayoutFromBoxes"
        self.page.wait_for_function("([kind]) => app.graph.nodes.some((node) => node.type === kind)", arg=[kind])

    def choose_photo(self, node: str, photo: Path) -> None:
        self.page.evaluate(
            """([title]) => {
                const node = app.graph.nodes.find((each) => each.title === title);
                app.canvas.ds.scale = 1;
                app.canvas.centerOnNode(node);
            }""",
            [node],
        )
        place = self.page.evaluate(
            """async ([title]) => {
                await new Promise((resolve) => setTimeout(resolve, 500));
                const node = app.graph.nodes.find((each) => each.title === title);
                const button = node.widgets.find((widget) => widget.type === "button");
                const { scale, offset } = app.canvas.ds, box = app.canvas.canvas.getBoundingClientRect();
                const at = [node.pos[0] + node.size[0] / 2, node.pos[1] + button.last_y + 10];
                return [box.left + (at[0] + offset[0]) * scale, box.top + (at[1] + offset[1]) * scale];
            }""",
            [node],
        )
        with self.page.expect_file_chooser() as chooser:
            self.page.mouse.move(*place)
            # Two clicks soon after each other would be a double click.
            self.page.wait_for_timeout(1000)
            self.page.mouse.click(*place, delay=100)
        self.clicks += 2  # The button, and Open in the system's dialog.
        chooser.value.set_files(str(photo))
        self.page.wait_for_function(
            "([title, name]) => app.graph.nodes.find((n) => n.title === title).widgets[0].value.includes(name)",
            arg=[node, photo.stem],
        )

    def run(self) -> dict:
        before = set(self.server.get("/history"))
        self.click(self.page.get_by_test_id("queue-button"))
        deadline = time.monotonic() + 200
        while not (new := set(self.server.get("/history")) - before):
            assert time.monotonic() < deadline, self.server.log[-2000:]
            self.page.wait_for_timeout(300)
        result = self.server.wait(new.pop())
        assert result.ok, result
        return result.outputs


@pytest.fixture
def person(server: ComfyServer) -> Iterator[Person]:
    with browser.open_frontend(server.url) as page:
        page.wait_for_function("() => app.graph.nodes.length > 0")
        yield Person(page, server)


def test_clicks_to_the_first_composed_picture(person: Person, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        pictures.photo(tmp_path / f"my-photo-{number}.png", number)
    try:
        person.open_template("01-train-concept")
        for number in (1, 2, 3):
            person.choose_photo(f"Photo {number}", tmp_path / f"my-photo-{number}.png")
        person.page.evaluate(SMALL, [SIDE])
        person.run()
        person.open_template("02-compose-with-boxes")
        person.page.evaluate(SMALL, [SIDE])
        outputs = person.run()
    finally:
        person.page.screenshot(path=tmp_path / "end.png")
    saved = [image for output in outputs.values() for image in output.get("images", []) if image["type"] == "output"]
    with Image.open(person.server.base / "output" / saved[0]["subfolder"] / saved[0]["filename"]) as picture:
        assert picture.size == (SIDE, SIDE)
    assert f"it takes **{person.clicks} clicks**" in (REPOSITORY / "README.md").read_text()
