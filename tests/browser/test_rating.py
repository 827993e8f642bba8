"""The rating page in a browser: blind, in random order, kept over a reload, with shares and intervals in the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from bench.reproduce.protocol import Tier, stages
from bench.reproduce.rating import write_rating_page
from support import chromium

TIER = Tier(rounds=1, nouns=1, pictures=2, both_orders=False, training=1.0, masks=False)


@pytest.fixture(scope="module")
def rating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three methods with two pictures each; cured pictures are green, plain ones red."""
    folder = tmp_path_factory.mktemp("study")
    blocks, _ = stages(TIER, 0, [("my-cat", "cat"), ("my-ball", "ball")], ("boat",))
    for block in blocks:
        for way, colour in (("plain", (200, 0, 0)), ("guided", (0, 200, 0))):
            for number in range(2):
                file = folder / "pictures" / block.key / f"{way}_boat_0_{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(file)
    page = write_rating_page(blocks, folder)
    assert page is not None
    return page


@pytest.fixture
def page(rating: Path) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(rating.as_uri())
        yield page
        browser.close()


SIDES = """() => ["left", "right"].map((side) => {
    const image = document.querySelector(`#${side} img`), canvas = document.createElement("canvas");
    const brush = canvas.getContext("2d");
    brush.drawImage(image, 0, 0);
    return brush.getImageData(0, 0, 1, 1).data[1] > 100 ? "cured" : "plain";
})"""


def sides(page: Page) -> list[str]:
    page.wait_for_function("() => [...document.querySelectorAll('.pair img')].every((image) => image.complete)")
    return page.evaluate(SIDES)


def test_a_reload_loses_nothing_and_shows_the_same(page: Page) -> None:
    assert page.inner_text("#progress") == "0 of 6"
    page.click("#left")
    page.keyboard.press("ArrowRight")
    before = (page.inner_text("#progress"), page.inner_text("#prompt"), sides(page))
    assert before[0] == "2 of 6"
    page.reload()
    assert (page.inner_text("#progress"), page.inner_text("#prompt"), sides(page)) == before
    page.click("#back")
    assert page.inner_text("#progress") == "1 of 6"


def test_nothing_on_the_page_says_which_is_which(page: Page) -> None:
    text = page.inner_text("body")
    assert "plain" not in text and "cure" not in text and "textual inversion" not in text
    assert page.inner_text("#prompt") == "my-cat and a boat"


def test_the_order_is_drawn_anew_for_every_person(page: Page) -> None:
    drawn = set()
    for _ in range(12):
        page.click("#restart")
        drawn.add(page.evaluate("() => JSON.stringify([state.order, state.swapped])"))
    assert len(drawn) > 6


def test_shares_and_intervals_in_the_end(page: Page) -> None:
    for _ in range(6):
        page.click("#left" if sides(page)[0] == "cured" else "#right")
    rows = page.eval_on_selector_all("#results tr", "rows => rows.map((row) => row.innerText)")
    assert len(rows) == 4
    # Wilson's interval of two out of two.
    assert all("1.00 [0.34, 1.00]" in row and "0.00 [0.00, 0.66]" in row for row in rows[1:])
    assert not page.is_visible("#question")
    page.reload()
    assert page.is_visible("#results table")
