"""The shared loop: resuming bit for bit, stopping at any moment, loss scale, divergence, the run folder."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from compinv_core.basics.digests import digest
from compinv_core.basics.errors import UserError
from compinv_core.basics.tensor_file import read_tensors, write_tensors
from compinv_core.training import divergence
from compinv_core.training.events import Event
from compinv_core.training.loop import LoopSettings, train
from compinv_core.training.run_folder.state import PREVIOUS_FILE, STATE_FILE, SUMMARY_FILE, RunStore
from compinv_core.training.task import StepLoss
from support.noisy_regression import NoisyRegression, Stop


def a_store(folder: Path, **fingerprint: str) -> RunStore:
    return RunStore(folder, {"learning_rate": "0.05", "images": "abc", **fingerprint}, {"name": "x"})


@pytest.fixture
def uninterrupted() -> tuple[NoisyRegression, dict[str, list[float]]]:
    task = NoisyRegression()
    return task, train(task, LoopSettings(steps=30, seed=3))


def test_history_has_one_value_per_step(uninterrupted: tuple) -> None:
    _, history = uninterrupted
    assert set(history) == {"loss", "size"} and len(history["loss"]) == len(history["size"]) == 30
    assert history["size"][0] == 0.0 and history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("save_every", [0, 7])
@pytest.mark.parametrize("fail_at", [1, 13, 29])
def test_stopped_inside_a_step_and_resumed_gives_the_same_bits(
    tmp_path: Path, uninterrupted: tuple, fail_at: int, save_every: int
) -> None:
    settings = LoopSettings(steps=30, seed=3, save_every=save_every)
    with pytest.raises(Stop):
        train(NoisyRegression(fail_at), settings, a_store(tmp_path))
    task = NoisyRegression()
    history = train(task, settings, a_store(tmp_path))
    assert task.calls == 30 - fail_at
    assert task.equals(uninterrupted[0]) and history == uninterrupted[1]


@pytest.mark.parametrize("listener", ["ask", "sink"])
def test_stopped_by_a_listener_and_resumed_gives_the_same_bits(
    tmp_path: Path, uninterrupted: tuple, listener: str
) -> None:
    calls = []

    def stop(*event: Event) -> None:
        calls.append(event)
        if len(calls) == 10:
            raise Stop

    settings = LoopSettings(steps=30, seed=3)
    with pytest.raises(Stop):
        train(NoisyRegression(), settings, a_store(tmp_path), **{listener: stop})
    task = NoisyRegression()
    assert train(task, settings, a_store(tmp_path)) == uninterrupted[1]
    assert task.equals(uninterrupted[0])


def test_a_finished_run_is_returned_and_can_be_made_longer(tmp_path: Path, uninterrupted: tuple) -> None:
    first = NoisyRegression()
    train(first, LoopSettings(steps=12, seed=3), a_store(tmp_path))
    again = NoisyRegression()
    train(again, LoopSettings(steps=12, seed=3), a_store(tmp_path))
    assert again.calls == 0 and again.equals(first)
    store = a_store(tmp_path)
    assert [store.check(steps, resume=True) for steps in (12, 30, 5)] == [12, 12, None]
    assert store.check(12, resume=False) is None
    longer = NoisyRegression()
    assert train(longer, LoopSettings(steps=30, seed=3), a_store(tmp_path)) == uninterrupted[1]
    assert longer.calls == 18 and longer.equals(uninterrupted[0])


def test_what_a_killed_save_left_is_cleared_away(tmp_path: Path) -> None:
    leftover = tmp_path / f".{STATE_FILE}.1.tmp"
    leftover.write_bytes(b"half a state")
    train(NoisyRegression(), LoopSettings(steps=2, seed=3), a_store(tmp_path))
    assert not leftover.exists() and (tmp_path / STATE_FILE).exists()


def test_an_unfinished_run_of_other_inputs_is_refused_and_kept(tmp_path: Path) -> None:
    settings = LoopSettings(steps=30, seed=3)
    with pytest.raises(Stop):
        train(NoisyRegression(8), settings, a_store(tmp_path))
    before = (tmp_path / STATE_FILE).read_bytes()
    other = a_store(tmp_path, images="xyz", learning_rate="0.1")
    with pytest.raises(UserError, match=r"step 8 of 30 and differs in images, learning_rate.*`resume` off"):
        other.check(30, resume=True)
    with pytest.raises(UserError, match="unfinished"):
        train(NoisyRegression(), settings, other)
    assert (tmp_path / STATE_FILE).read_bytes() == before


def test_beginning_anew_sets_the_old_state_aside(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(NoisyRegression(8), LoopSettings(steps=30, seed=3), a_store(tmp_path))
    before = (tmp_path / STATE_FILE).read_bytes()
    task = NoisyRegression()
    train(task, LoopSettings(steps=5, seed=3, resume=False), a_store(tmp_path, images="xyz"))
    assert task.calls == 5 and (tmp_path / PREVIOUS_FILE).read_bytes() == before


def test_a_finished_run_of_other_inputs_gives_way(tmp_path: Path) -> None:
    train(NoisyRegression(), LoopSettings(steps=5), a_store(tmp_path))
    task = NoisyRegression()
    train(task, LoopSettings(steps=5), a_store(tmp_path, images="xyz"))
    assert task.calls == 5 and (tmp_path / PREVIOUS_FILE).exists()


def test_a_damaged_state_gets_a_sentence(tmp_path: Path) -> None:
    train(NoisyRegression(), LoopSettings(steps=5), a_store(tmp_path))
    (tmp_path / STATE_FILE).write_bytes(b"half a fi")
    with pytest.raises(UserError, match="cannot be read"):
        a_store(tmp_path).check(5, resume=True)


@pytest.mark.parametrize("missing", ["task.weight", "generator", "task.updates"])
def test_what_a_state_lacks_is_named(tmp_path: Path, missing: str) -> None:
    train(NoisyRegression(), LoopSettings(steps=5), a_store(tmp_path))
    state = read_tensors(tmp_path / STATE_FILE, "a state", "stop", 10**6)
    write_tensors(tmp_path / STATE_FILE, {k: v for k, v in state.tensors.items() if k != missing}, state.metadata)
    with pytest.raises(UserError, match=f"lacks {missing}.*turn `resume` off"):
        train(NoisyRegression(), LoopSettings(steps=5), a_store(tmp_path))
    for tensors in (
        {**state.tensors, missing: torch.zeros(9)},
        {k: v for k, v in state.tensors.items() if "opt" not in k},
    ):
        write_tensors(tmp_path / STATE_FILE, tensors, state.metadata)
        with pytest.raises(UserError, match="turn `resume` off"):
            train(NoisyRegression(), LoopSettings(steps=9), a_store(tmp_path))


@pytest.mark.parametrize("header", ["{}", "[]", "5", "[" * 100_000, '{"format": "compinv-run-1"}'])
def test_a_header_edited_by_hand_gets_a_sentence(tmp_path: Path, header: str) -> None:
    write_tensors(tmp_path / STATE_FILE, {"generator": torch.zeros(3)}, {"run": header})
    with pytest.raises(UserError, match="cannot be read"):
        a_store(tmp_path).check(5, resume=True)


def test_a_run_that_an_earlier_version_began_is_known_again(tmp_path: Path) -> None:
    train(NoisyRegression(), LoopSettings(steps=5), RunStore(tmp_path, {"model": "sampled digest"}, {}))
    for earlier, done in (("sampled digest", 5), ("another", None)):
        store = RunStore(tmp_path, {"model": "whole digest"}, {}, lambda earlier=earlier: {"model": earlier})
        assert store.check(5, resume=True) == done


def test_every_step_is_reported_with_losses_and_anchors() -> None:
    events: list[Event] = []
    history = train(NoisyRegression(), LoopSettings(steps=3), sink=events.append)
    assert [(event.work, event.step, event.total) for event in events] == [("training", n, 3) for n in range(4)]
    assert [event.losses["loss"] for event in events[1:]] == history["loss"]
    assert events[1].anchors == {"cat": 1.0}


def test_summary_is_for_people(tmp_path: Path) -> None:
    train(NoisyRegression(), LoopSettings(steps=5), a_store(tmp_path))
    summary = json.loads((tmp_path / SUMMARY_FILE).read_text())
    assert (summary["step"], summary["steps"], summary["settings"]) == (5, 5, {"name": "x"})


def test_different_seeds_differ(uninterrupted: tuple) -> None:
    task = NoisyRegression()
    train(task, LoopSettings(steps=30, seed=4))
    assert not task.equals(uninterrupted[0])


class Diverging(NoisyRegression):
    """Is no number from call `bad` on, or `factor` times as large."""

    def __init__(self, bad: int, factor: float = float("nan")) -> None:
        super().__init__()
        self.bad, self.factor = bad, factor

    def loss(self, batch: int, generator: torch.Generator) -> StepLoss:
        loss = super().loss(batch, generator)
        return StepLoss(loss.total * (self.factor if self.calls > self.bad else 1.0), loss.parts)


def sentences(task: NoisyRegression, settings: LoopSettings, store: RunStore | None = None) -> tuple[dict, list[str]]:
    events: list[Event] = []
    history = train(task, settings, store, events.append)
    return history, [event.sentence for event in events if event.sentence]


def test_divergence_ends_the_run_at_its_last_sound_state(tmp_path: Path) -> None:
    task, settings = Diverging(45), LoopSettings(steps=100, seed=3, save_every=10)
    history, (told,) = sentences(task, settings, a_store(tmp_path))
    assert "gave a loss that is infinite or no number by step 46" in told and "the word of step 41 was kept" in told
    assert task.calls == 46 and len(history["loss"]) == 41
    whole = NoisyRegression()
    train(whole, LoopSettings(steps=41, seed=3))
    assert task.equals(whole)
    assert a_store(tmp_path).open(100, resume=True).step == 41  # type: ignore[union-attr]


def test_a_loss_that_rises_ends_the_run_within_twenty_steps_at_a_state_before() -> None:
    task = Diverging(65, factor=1000.0)
    history, (told,) = sentences(task, LoopSettings(steps=300, seed=3))
    assert "its loss rose to over five times what it had been by step 80" in told
    assert task.calls == 80 and 40 <= len(history["loss"]) <= 65
    assert all(loss < 100 for loss in history["loss"])


def test_a_large_state_falls_back_to_the_saved_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "_LARGEST_STATE", 0)
    task = Diverging(45)
    history, (told,) = sentences(task, LoopSettings(steps=100, seed=3, save_every=30), a_store(tmp_path))
    assert "the word of step 30 was kept" in told and len(history["loss"]) == 30
    whole = NoisyRegression()
    train(whole, LoopSettings(steps=30, seed=3))
    assert task.equals(whole)


def test_divergence_from_the_first_step_gets_a_sentence_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lower learning_rate"):
        train(Diverging(0), LoopSettings(steps=30, save_every=10), a_store(tmp_path))
    assert not (tmp_path / STATE_FILE).exists()


@pytest.mark.parametrize(
    ("losses", "risen"),
    [
        ([1.0] * 60 + [6.0] * 20, True),
        ([1.0] * 60 + [4.0] * 20, False),
        ([1.0] * 20 + [9.0] * 20, False),
        ([1.0] * 60 + [9.0] * 19, False),
        ([8.0] * 20 + [1.0] * 40 + [4.5] * 20, False),
        ([0.01, 0.5] * 60, False),
        ([1.0] * 75 + [math.inf] * 5, False),
    ],
)
def test_what_counts_as_a_rise(losses: list[float], risen: bool) -> None:
    assert divergence.has_risen(losses) is risen


class HalfPrecision(NoisyRegression):
    """Gradients pass through float16 and are small enough to vanish there; one of them overflows."""

    def loss(self, batch: int, generator: torch.Generator) -> StepLoss:
        self.calls += 1
        half = self.weight.half()
        size = 1e5 if self.calls == 3 else 1e-6
        total = ((half - 1) * torch.tensor(size, dtype=torch.float32)).float().sum() + 0 * self.bias.sum()
        return StepLoss(total, {})


def test_loss_scale_keeps_small_gradients_and_skips_overflow() -> None:
    task = HalfPrecision()
    positions = []

    def record(event: Event) -> None:
        if event.step:
            positions.append(float(task.weight.detach()[0]))

    train(task, LoopSettings(steps=4, scale_loss=True), sink=record)
    # AdamW moves by the learning rate for any gradient that is not zero.
    assert positions[0] == pytest.approx(-0.05, rel=1e-2)
    assert positions[2] == positions[1] and positions[3] < positions[2]


def test_digest_sees_values_shapes_and_types() -> None:
    tensor = torch.arange(6.0)
    assert digest(tensor) == digest(tensor.clone())
    others = [tensor + 1e-6, tensor.reshape(2, 3), tensor.double(), torch.cat([tensor, tensor])]
    assert len({digest(other) for other in [tensor, *others]}) == 5
    assert digest(torch.tensor(1.0)) != digest(torch.tensor(2.0))


class Averaged(NoisyRegression):
    """Batch b pulls the weight towards b: the gradients of a step are averaged."""

    def loss(self, batch: int, generator: torch.Generator) -> StepLoss:
        self.calls += 1
        return StepLoss((self.weight - batch).square().sum(), {"number": torch.tensor(float(batch))})


def test_batches_are_accumulated_and_averaged() -> None:
    task, gradients = Averaged(), []

    def record(event: Event) -> None:
        if event.step:
            assert task.weight.grad is not None
            gradients.append(float(task.weight.grad[0]))

    history = train(task, LoopSettings(steps=2, accumulation=3), sink=record)
    # Batches 0, 1, 2 make the first step: the mean of 2 (0 - b).
    assert gradients[0] == pytest.approx(-2.0) and task.calls == 6
    assert history["number"] == [1.0, 4.0] and history["loss"][0] == pytest.approx(5 * 5 / 3)
