"""The reproduction: blocks, a store that goes on to the same bytes, tables, early stops, the rating page."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from bench.reproduce.protocol import METHODS, NOUN, OWN, TIERS, Block, Tier, stages
from bench.reproduce.rating import write_rating_page
from bench.reproduce.run import run
from bench.reproduce.store import Row, Store
from bench.reproduce.tables import ablation, is_decided, table_one
from compinv_core.basics.errors import UserError
from support.locations import REPOSITORY

THINGS = [("my-cat", "cat"), ("my-ball", "ball"), ("my-car", "car")]
NOUNS = ("cat", "ball", "car", "boat", "moon", "tree")
SMALL = Tier(rounds=3, nouns=2, pictures=2, both_orders=True, training=1.0, masks=True)


def all_there(block: Block, spatial: bool) -> int:
    """Cures help, but not DreamBooth."""
    return int(block.method != "DreamBooth" and block.semantic and spatial)


def rows_of(block: Block) -> list[Row]:
    rows = []
    for spatial in (False, True):
        for other, order, _ in block.prompts(["a", "b"][: len(block.things)]):
            for picture in range(block.pictures):
                there = all_there(block, spatial)
                rows.append(
                    {
                        "method": block.method, "semantic": int(block.semantic), "spatial": int(spatial),
                        "masked": int(block.masked), "half": block.half, "thing": block.things[0], "other": other,
                        "order": order, "seed": block.seed, "picture": picture, "all_there": there, "composed": there,
                        "text_alignment": 0.5 + there / 2, "image_alignment": 0.25,
                    }
                )  # fmt: skip
    return rows


def in_any_order(blocks: Iterable[Block]) -> Iterator[tuple[Block, list[Row]]]:
    blocks = list(blocks)
    random.shuffle(blocks)
    return ((block, rows_of(block)) for block in blocks)


class Killed(Exception):
    """The process ended here."""


def killed_after(count: int):
    def hand(blocks: Iterable[Block]) -> Iterator[tuple[Block, list[Row]]]:
        nonlocal count
        for block, rows in in_any_order(blocks):
            if count == 0:
                raise Killed
            count -= 1
            yield block, rows

    return hand


def table(folder: Path, hand=in_any_order, tier: Tier = SMALL) -> bytes:
    store = Store(folder, {"tier": "small"})
    return store.write_table(run(tier, THINGS, NOUNS, store, hand, lambda text: None)).read_bytes()


def test_a_round_has_every_method_and_cure_once_and_no_shared_words_in_a_stage() -> None:
    for number in range(4):
        singles, pairs = stages(SMALL, number, THINGS, NOUNS)
        # Masks are a third cure of textual inversion alone.
        assert len(singles) == len(pairs) == len(METHODS) * 2 + 2
        assert len({block.key for block in singles + pairs}) == len(singles + pairs)
        for stage in (singles, pairs):
            words = [block.word(thing) for block in stage for thing in block.things]
            assert len(words) == len(set(words))
        assert {block.half for block in singles} == {NOUN} and {block.half for block in pairs} == {OWN}
        own = dict(THINGS)[singles[0].things[0]]
        assert own not in singles[0].nouns and len(singles[0].nouns) == 2


def test_prompts_have_both_orders_and_the_words_of_own_things() -> None:
    singles, pairs = stages(SMALL, 0, THINGS, NOUNS)
    prompts = list(singles[0].prompts(["embedding:x cat"]))
    assert prompts[0] == ("ball", 0, "a photo of a embedding:x cat and a ball")
    assert prompts[1] == ("ball", 1, "a photo of a ball and a embedding:x cat")
    assert len(prompts) == 4
    assert [text for *_, text in pairs[0].prompts(["S cat", "T ball"])] == [
        "a photo of a S cat and a T ball", "a photo of a T ball and a S cat"
    ]  # fmt: skip


def test_the_papers_protocol_is_the_full_tier() -> None:
    full = TIERS["full"]
    assert (full.rounds, full.nouns, full.pictures, full.both_orders, full.training) == (10, 0, 10, True, 1.0)
    singles, _ = stages(full, 0, [(f"t{i}", f"n{i}") for i in range(10)], [f"noun{i}" for i in range(80)])
    assert len(singles[0].nouns) == 80


@pytest.mark.parametrize("seed", range(5))
def test_killed_twice_at_random_the_table_is_the_same_bytes(tmp_path: Path, seed: int) -> None:
    random.seed(seed)
    whole = table(tmp_path / "whole")
    for _ in range(2):
        with pytest.raises(Killed):
            table(tmp_path / "killed", killed_after(random.randrange(1, 15)))
    assert table(tmp_path / "killed") == whole
    rows = list(csv.DictReader(whole.decode().splitlines()))
    assert len(rows) > 100 and rows[0]["method"] == "Custom Diffusion"


def test_a_decided_method_is_left_out_of_further_rounds(tmp_path: Path) -> None:
    long = Tier(rounds=6, nouns=2, pictures=2, both_orders=True, training=1.0, masks=False)
    store = Store(tmp_path, {})
    rows = run(long, THINGS, NOUNS, store, in_any_order, lambda text: None)
    assert is_decided(rows, "textual inversion") and not is_decided(rows, "DreamBooth")
    words = {method: {(r["thing"], r["seed"]) for r in rows if r["method"] == method} for method in METHODS}
    assert len(words["textual inversion"]) == 3 and len(words["DreamBooth"]) == 6


def test_one_or_two_words_decide_nothing() -> None:
    singles, _ = stages(SMALL, 0, THINGS, NOUNS)
    assert not is_decided([row for block in singles for row in rows_of(block)], "textual inversion")


def test_another_reproduction_in_the_folder_is_refused(tmp_path: Path) -> None:
    Store(tmp_path, {"tier": "small", "steps": 3})
    Store(tmp_path, {"tier": "small", "steps": 3})
    with pytest.raises(UserError, match="a reproduction with another steps; choose another --folder"):
        Store(tmp_path, {"tier": "small", "steps": 4})


def test_tables_have_twelve_rows_and_a_row_for_each_cure() -> None:
    rows = [row for stage in stages(SMALL, 0, THINGS, NOUNS) for block in stage for row in rows_of(block)]
    lines = table_one(rows).splitlines()
    assert len(lines) == 2 + 12
    # One word has no interval.
    assert lines[2].startswith("| textual inversion | alone | 0.50 | 0.25 |")
    rows += [row for stage in stages(SMALL, 1, THINGS, NOUNS) for block in stage for row in rows_of(block)]
    assert "1.00 [1.00, 1.00]" in table_one(rows).splitlines()[5]
    rows = rows[: len(rows) // 2]
    cured = ablation(rows, "textual inversion").splitlines()
    assert len(cured) == 2 + 8 and cured[6].startswith("| masks, alone | 8 |")
    assert len(ablation(rows, "Custom Diffusion").splitlines()) == 2 + 4
    # What nobody measured is a dash.
    assert cured[2].endswith("– |")


def test_the_rating_page_holds_its_pictures_and_hides_which_is_which(tmp_path: Path) -> None:
    singles, _ = stages(SMALL, 0, THINGS, NOUNS)
    blocks = [block for block in singles if not block.masked]
    assert write_rating_page(blocks, tmp_path) is None
    for block in blocks:
        for way in ("plain", "guided"):
            file = tmp_path / "pictures" / block.key / f"{way}_boat_0_0.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file)
    page = write_rating_page(blocks, tmp_path)
    assert page is not None
    text = page.read_text()
    questions = json.loads(text.split("const QUESTIONS = ")[1].split(", STUDY")[0])
    assert {each["method"] for each in questions} == set(METHODS)
    assert all(each["plain"].startswith("data:image/png;base64,") for each in questions)
    assert "http" not in text.split("<script>")[0]


def test_workers_end_when_the_command_is_killed(tmp_path: Path) -> None:
    script = f"""
import os, sys, time
from pathlib import Path
from bench.reproduce import run
from bench.reproduce.worlds import Place

def slow(block, place):
    Path({str(tmp_path)!r}, str(os.getpid())).touch()
    time.sleep(300)

run.carry_out = slow
if __name__ == "__main__":
    with run.workers(Place("x"), 2, False, print) as hand:
        list(hand([1, 2]))
"""
    (tmp_path / "killed.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = subprocess.Popen([sys.executable, str(tmp_path / "killed.py")], env=environment)
    deadline = time.monotonic() + 120
    while len(numbers := [int(f.name) for f in tmp_path.iterdir() if f.name.isdigit()]) < 2:
        assert time.monotonic() < deadline and command.poll() is None
        time.sleep(0.2)
    command.kill()
    command.wait()
    while any(psutil.pid_exists(number) for number in numbers):
        assert time.monotonic() < deadline
        time.sleep(0.2)
