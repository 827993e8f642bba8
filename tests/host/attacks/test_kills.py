"""The trainings and the collection, killed at any moment and resumed: the same bytes, and nothing left behind."""

from __future__ import annotations

import functools
import itertools
import os
import random
import time
from pathlib import Path

import pytest

from support.attacks import jobs
from support.attacks.amounts import seeds
from support.models.training_case import Loaded

pytestmark = pytest.mark.usefixtures("one_thread")
# Altogether 50 by command.
KILLS = {"textual_inversion": (1, 14), "custom_diffusion": (1, 12), "dreambooth": (1, 10), "collection": (2, 14)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", jobs.JOBS)
def test_killed_at_any_moment_and_resumed_gives_the_same_bytes(loaded: Loaded, tmp_path: Path, name: str) -> None:
    start = time.monotonic()
    jobs.finish(jobs.fork(functools.partial(jobs.job, name, loaded, tmp_path / "straight")))
    took = time.monotonic() - start
    straight = jobs.files(tmp_path / "straight")
    wanted = seeds(*KILLS[name])
    rng, killed, rounds = random.Random(wanted.start), 0, 0
    while killed < len(wanted):
        rounds += 1
        work = functools.partial(jobs.job, name, loaded, tmp_path / f"killed {rounds}")
        # Several kills in one run, until it is through.
        while killed < len(wanted) and jobs.kill_within(jobs.fork(work), took, rng):
            killed += 1
        jobs.finish(jobs.fork(work))
        resumed = jobs.files(tmp_path / f"killed {rounds}")
        assert resumed.keys() == straight.keys()
        assert [path for path in straight if resumed[path] != straight[path]] == []


@pytest.mark.parametrize("name", jobs.SOME)
def test_a_clock_that_jumps_changes_nothing(loaded: Loaded, tmp_path: Path, name: str) -> None:
    def jump_and_work() -> None:
        right, jumps = time.time, itertools.cycle((0.0, -90_000.0, 700.0))
        time.time = lambda: right() + next(jumps)
        jobs.job(name, loaded, tmp_path / "jumping")

    jobs.finish(jobs.fork(functools.partial(jobs.job, name, loaded, tmp_path / "straight")))
    jobs.finish(jobs.fork(jump_and_work))
    assert jobs.files(tmp_path / "jumping") == jobs.files(tmp_path / "straight")


def test_a_second_process_of_one_name_is_refused_and_the_first_goes_on(loaded: Loaded, tmp_path: Path) -> None:
    """Two servers, or two trainings of one name, with other settings."""
    from compinv_core.basics.errors import UserError

    read, write = os.pipe()
    first = jobs.fork(
        lambda: jobs.job("textual_inversion", loaded, tmp_path / "both", lambda: (os.write(write, b"."), time.sleep(1)))
    )
    os.read(read, 1)
    for name in jobs.TRAININGS:
        with pytest.raises(UserError, match="Another ComfyUI is at work"):
            jobs.job(name, loaded, tmp_path / "both")
    jobs.finish(first)
    jobs.finish(jobs.fork(functools.partial(jobs.job, "textual_inversion", loaded, tmp_path / "straight")))
    assert jobs.files(tmp_path / "both") == jobs.files(tmp_path / "straight")
