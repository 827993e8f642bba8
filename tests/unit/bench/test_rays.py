"""Blocks on real Ray workers, one of which is killed: the same rows, nothing twice, nothing missing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from bench.reproduce.protocol import Tier, stages
from bench.reproduce.rays import ray_workers
from bench.reproduce.store import Row, Store
from bench.reproduce.worlds import Place

THINGS = [("my-cat", "cat"), ("my-ball", "ball")]
SMALL = Tier(rounds=1, nouns=1, pictures=1, both_orders=False, training=1.0, masks=False)


@pytest.mark.filterwarnings("ignore")
def test_a_lost_workers_blocks_are_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    (blocks, _) = stages(SMALL, 0, THINGS, ("cat", "ball", "boat"))
    died = tmp_path / "died"
    unlucky = blocks[2].key

    def work(block, place) -> list[Row]:
        if block.key == unlucky and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        key = {"method": block.method, "semantic": int(block.semantic), "spatial": 0, "masked": 0, "half": block.half}
        return [
            {**key, "thing": block.things[0], "other": "boat", "order": 0, "seed": 0, "picture": 0, "n": len(block.key)}
        ]

    tables = {}
    for name in ("once", "again"):
        store = Store(tmp_path / name, {})
        with ray_workers(Place(str(tmp_path)), 2, work) as hand:
            done = [block for block, rows in hand(blocks) if store.keep(block, rows) is None]
        assert sorted(block.key for block in done) == sorted(block.key for block in blocks)
        tables[name] = store.write_table(store.rows(blocks)).read_bytes()
    assert died.exists()
    # The second time nobody dies.
    assert tables["once"] == tables["again"]
    assert tables["once"].count(b"\n") == 1 + len(blocks)
