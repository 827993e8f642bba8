"""Saved steps: any of them becomes the result as if the training had ended there, and the rest stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compinv_core.basics.errors import UserError
from compinv_core.training.loop import LoopSettings, take_saved, train
from compinv_core.training.run_folder import saved_steps
from compinv_core.training.run_folder.saved_steps import SavedSteps
from compinv_core.training.run_folder.state import STATE_FILE, RunStore
from compinv_core.training.watch import BEST, Measurement, Watch, at_steps
from support.noisy_regression import NoisyRegression, Stop

SETTINGS = LoopSettings(steps=10, seed=3, save_every=3)


def a_store(folder: Path, **fingerprint: str) -> RunStore:
    return RunStore(folder, {"images": "abc", **fingerprint}, {})


def a_watch(**options: str) -> Watch:
    measured = iter([(1.0, 9.0), (0.5, 5.0), (0.9, 4.0), (0.4, 3.0)])
    return Watch(lambda: next(measured), 4, **options)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    train(NoisyRegression(), SETTINGS, a_store(tmp_path))
    return tmp_path


@pytest.mark.parametrize("step", [3, 9, 10])
def test_a_saved_step_is_what_a_training_that_ended_there_gives(finished: Path, step: int) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    task, whole = NoisyRegression(), NoisyRegression()
    history = take_saved(task, a_store(finished), step)
    assert train(whole, LoopSettings(steps=step, seed=3)) == history
    assert task.equals(whole) and task.calls == 0
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_a_stopped_run_gives_its_steps_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(NoisyRegression(8), SETTINGS, a_store(tmp_path))
    store = a_store(tmp_path)
    assert store.kept_steps(store.read_header()) == [3, 6, 8]
    take_saved(NoisyRegression(), store, 6)
    task, whole = NoisyRegression(), NoisyRegression()
    assert train(task, SETTINGS, store) == train(whole, LoopSettings(steps=10, seed=3))
    assert task.equals(whole) and task.calls == 2


def test_what_cannot_be_chosen_gets_a_sentence(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"saved_step is 4, but of this training only 3, 6, 9, 10 can be chosen"):
        take_saved(NoisyRegression(), a_store(finished), 4)
    with pytest.raises(UserError, match=r"differs in images; restore those inputs, or set saved_step to 0"):
        a_store(finished, images="xyz").check_saved(3)
    with pytest.raises(UserError, match="no training of this name has been saved; set it to 0"):
        a_store(tmp_path / "other").check_saved(3)


def test_a_run_that_begins_anew_has_no_steps_of_the_old_one(finished: Path) -> None:
    SavedSteps(finished, "").keep_picture(9, b"jpeg")
    with pytest.raises(Stop):
        train(NoisyRegression(4), LoopSettings(steps=20, seed=4, save_every=4), a_store(finished, seed="4"))
    saved = SavedSteps(finished, "")
    assert saved.steps() == [4] and saved.pictures() == []


def test_what_was_after_the_step_that_a_run_goes_on_from_is_dropped(finished: Path) -> None:
    saved = SavedSteps(finished, "")
    saved.keep(6, {"weight": torch.ones(1)})
    assert saved.steps() == [3, 6]


def test_of_many_steps_those_go_that_have_others_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_steps, "_MOST_STEPS", 5)
    saved = SavedSteps(tmp_path, "")
    for step in range(1, 41):
        saved.keep(step, {"weight": torch.full((1,), float(step))})
    kept = saved.steps()
    assert len(kept) == 5 and kept[0] == 1 and kept[-1] == 40
    assert all(float(saved.read(step)["weight"]) == step for step in kept)  # type: ignore[index]


def test_of_large_trainings_the_last_step_and_the_best_can_be_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_steps, "LARGEST_STEP", 8)
    train(NoisyRegression(), SETTINGS, a_store(tmp_path), watch=a_watch(keep=BEST))
    store, watch = a_store(tmp_path), a_watch()
    assert store.kept_steps(store.read_header()) == [8, 10] and not store.saved.steps()
    for step in (8, 10):
        task, whole = NoisyRegression(), NoisyRegression()
        history = take_saved(task, store, step, watch)
        train(whole, LoopSettings(steps=step, seed=3))
        assert task.equals(whole) and watch.result_step == step
        assert history["composition"][:8] == [1.0] * 3 + [0.5] * 4 + [0.9]


def test_previews_are_kept_where_they_show_a_saved_step(tmp_path: Path) -> None:
    saved = SavedSteps(tmp_path, "")
    for step in range(1, 10):
        saved.keep_picture(step, b"jpeg")
        if step in (3, 5):
            saved.keep(step, {"weight": torch.ones(1)})
    assert saved.pictures() == [3, 5, 9]


def test_scores_are_those_measured_last_and_the_best_is_the_watchs() -> None:
    rows = [Measurement(0, 1.0, 9.0), Measurement(4, 0.8, 5.0), Measurement(8, 0.7, 4.9), Measurement(12, 0.3, 4.8)]
    assert at_steps(rows, [2, 5, 9, 12]) == ({5: 0.8, 9: 0.7, 12: 0.3}, 5)
    assert at_steps([], [2]) == ({}, None)


def test_a_state_without_its_steps_is_read_whole(finished: Path) -> None:
    (finished / "saved" / "000010.safetensors").unlink()
    task, whole = NoisyRegression(), NoisyRegression()
    take_saved(task, a_store(finished), 10)
    train(whole, LoopSettings(steps=10, seed=3))
    assert task.equals(whole) and (finished / STATE_FILE).is_file()
