"""Which step is kept, and when a training ends, by measurements made up by hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from compinv_core.training.loop import LoopSettings, train
from compinv_core.training.run_folder.state import RunStore
from compinv_core.training.watch import BEST, NO_LONGER, PATIENCE, Measurement, Watch
from support.noisy_regression import NoisyRegression, Stop


def watch_of(rows: Iterable[tuple[float, float]], every: int = 1, **choices: str) -> Watch:
    numbers = iter(rows)
    return Watch(lambda: next(numbers), every, **choices)


def measured(*rows: tuple[float, float], **choices: str) -> Watch:
    watch = watch_of(rows, **choices)
    for step in range(len(rows)):
        watch.measure(step)
    return watch


def test_nothing_is_kept_before_anything_is_learned() -> None:
    assert measured((1.0, 0.5), (0.9, 0.5), (0.8, 0.6)).kept is None


def test_the_best_of_those_that_learned_enough_is_kept() -> None:
    # Gains .1, .4, .5, .42: four fifths of .5 are .4, so the first has learned too little, however well it combines.
    watch = measured((1.0, 0.6), (0.9, 0.5), (0.5, 0.2), (0.3, 0.1), (0.6, 0.18))
    assert watch.kept == Measurement(4, 0.6, 0.18)


def test_a_kept_step_that_falls_behind_gives_way_to_the_one_at_hand() -> None:
    watch = measured((1.0, 0.6), (0.9, 0.5), (0.2, 0.1))
    assert watch.kept == Measurement(2, 0.2, 0.1)


def test_it_ends_when_nothing_improves() -> None:
    watch = measured((1.0, 0.6), (0.8, 0.2), *[(0.7, 0.21)] * (PATIENCE - 1), stop=NO_LONGER)
    assert not watch.ended
    watch = measured((1.0, 0.6), (0.8, 0.2), *[(0.7, 0.21)] * PATIENCE, stop=NO_LONGER)
    assert watch.ended
    assert not measured((1.0, 0.6), (0.8, 0.2), *[(0.7, 0.21)] * PATIENCE).ended


def test_learning_more_counts_as_an_improvement() -> None:
    falling = [(0.5, 0.5 - 0.1 * i) for i in range(6)]
    assert not measured((1.0, 0.6), *falling, stop=NO_LONGER).ended


def test_it_measures_now_and_then_and_at_the_end() -> None:
    watch = watch_of([(1.0, 1.0)] * 9, every=4)
    due = []
    for step in range(11):
        if watch.is_due(step, 10):
            watch.measure(step)
            due.append(step)
    assert due == [0, 4, 8, 10] and not watch.is_due(10, 10)


def test_the_curve_holds_the_last_value() -> None:
    watch = Watch(lambda: (0.0, 0.0), 2)
    watch.restore([Measurement(0, 1.0, 1.0), Measurement(2, 0.5, 0.5), Measurement(4, 0.25, 0.5)])
    assert watch.curves(5) == {"composition": [1.0, 0.5, 0.5, 0.25, 0.25], "steady loss": [1.0, 0.5, 0.5, 0.5, 0.5]}


def test_going_back_forgets_what_came_after() -> None:
    watch = measured((1.0, 0.6), (0.8, 0.2), (0.9, 0.1))
    watch.back_to(1)
    assert [row.step for row in watch.rows] == [0, 1] and watch.kept == Measurement(1, 0.8, 0.2)


# Learned from step 2 on; combines best at step 4, where `NoisyRegression` is kept.
ROWS = [(1.0, 1.0), (0.1, 0.5), (0.6, 0.5), (0.2, 0.5), (0.1, 0.5)]


def best_run(
    store: RunStore | None, task: NoisyRegression, rows: Iterable[tuple[float, float]], steps: int = 8
) -> Watch:
    watch = watch_of(rows, every=2, keep=BEST)
    train(task, LoopSettings(steps=8, seed=3, save_every=3), store, watch=watch)


@pytest.mark.parametrize("stored", [True, False])
def test_the_kept_step_is_the_result(stored: bool, tmp_path: Path) -> None:
    short = NoisyRegression()
    train(short, LoopSettings(steps=4, seed=3))
    task, sentences = NoisyRegression(), []
    watch = watch_of(ROWS, every=2, keep=BEST)
    store = RunStore(tmp_path, {}, {}) if stored else None
    settings = LoopSettings(steps=8, seed=3)
    history = train(task, settings, store, lambda event: sentences.append(event.sentence), watch=watch)
    assert task.equals(short) and watch.result_step == 4
    assert "Step 4 of 8 was kept" in "".join(sentences)
    assert history["composition"] == [1.0, 0.1, 0.1, 0.6, 0.6, 0.2, 0.2, 0.1] and len(history["loss"]) == 8


def test_a_finished_run_gives_its_kept_step_again(tmp_path: Path) -> None:
    first, again = NoisyRegression(), NoisyRegression()
    best_run(RunStore(tmp_path, {}, {}), first, ROWS)
    best_run(RunStore(tmp_path, {}, {}), again, ())
    assert again.equals(first)


def test_a_run_that_was_stopped_keeps_the_same_step(tmp_path: Path) -> None:
    whole, stopped, resumed = NoisyRegression(), NoisyRegression(fail_at=5), NoisyRegression()
    best_run(None, whole, ROWS)
    rows = iter(ROWS)
    with pytest.raises(Stop):
        best_run(RunStore(tmp_path, {}, {}), stopped, rows)
    best_run(RunStore(tmp_path, {}, {}), resumed, rows)
    assert resumed.equals(whole)


def test_a_run_from_before_there_were_measurements_goes_on(tmp_path: Path) -> None:
    whole, resumed = NoisyRegression(), NoisyRegression()
    train(whole, LoopSettings(steps=8, seed=3))
    with pytest.raises(Stop):
        train(NoisyRegression(fail_at=5), LoopSettings(steps=8, seed=3), RunStore(tmp_path, {}, {}))
    watch = watch_of([(1.0, 1.0)] * 3, every=4)
    train(resumed, LoopSettings(steps=8, seed=3), RunStore(tmp_path, {}, {}), watch=watch)
    assert resumed.equals(whole) and [row.step for row in watch.rows] == [5, 8]


def test_it_stops_early_and_stays_stopped(tmp_path: Path) -> None:
    task, calls = NoisyRegression(), NoisyRegression()
    rows = [(1.0, 1.0), (0.5, 0.5), *[(0.4, 0.5)] * 20]
    watch = watch_of(rows, stop=NO_LONGER)
    train(task, LoopSettings(steps=15, seed=3), RunStore(tmp_path, {}, {}), watch=watch)
    assert task.calls == 1 + PATIENCE
    watch = watch_of((), stop=NO_LONGER)
    train(calls, LoopSettings(steps=15, seed=3), RunStore(tmp_path, {}, {}), watch=watch)
    assert calls.calls == 0 and calls.equals(task)
    # It counts as finished, so that other settings begin anew and are not refused.
    assert RunStore(tmp_path, {"rate": "2"}, {}).check(15, True) is None


def test_measuring_draws_no_random_numbers() -> None:
    watched, alone = NoisyRegression(), NoisyRegression()
    train(alone, LoopSettings(steps=6, seed=3))
    train(watched, LoopSettings(steps=6, seed=3), watch=watch_of([(0.5, float(torch.rand(()))) for _ in range(9)]))
    assert watched.equals(alone)
