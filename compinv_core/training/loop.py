"""The training loop that all methods share: optimiser, random numbers, saving, resuming, stopping.

A method is a `TrainingTask`: it names its parameters, from a few vectors to a whole network, and computes a loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler

from ..basics.errors import UserError
from .divergence import Diverged, SoundStates, has_risen
from .events import Sink, Work, nobody
from .optimizers import load_optimizer_state, make_optimizer, optimizer_state
from .run_folder.saved_steps import BestState
from .run_folder.state import TASK, RunState, RunStore
from .task import TOTAL, LoopSettings, TrainingTask
from .watch import Measurement, Watch

_OPTIMIZER = "optimizer."
# Reading a loss back makes a GPU wait, so losses are collected and read in groups.
FLUSH_EVERY = 20
_FIRST_SCALE = 2.0**13


def train(
    task: TrainingTask,
    settings: LoopSettings,
    store: RunStore | None = None,
    sink: Sink = nobody,
    ask: Callable[[], None] = lambda: None,
    watch: Watch | None = None,
) -> dict[str, list[float]]:
    """Run a task to its last step, continuing a saved run where there is one.

    An interruption of any kind, also in the middle of a step, saves the state as it was between two steps. A resumed
    run gives the same bits as an uninterrupted one on the same machine and number of threads. A training that diverges
    ends early, at its last sound state, and the sink hears a sentence.

    Parameters
    ----------
    store : RunStore, optional
        Nothing is saved or resumed without one.
    sink : Sink
        Hears of every step; losses are reported when they have been read from the device.
    ask : callable
        Called before every batch; may raise to stop. The state is saved first, as it is when `sink` raises.
    watch : Watch, optional
        Measures the task now and then; may end the training early, and have a step other than the last one kept.

    Returns
    -------
    dict of str to list of float
        One value per step for ``loss``, every named part, and the curves of the watch.

    Raises
    ------
    UserError
        When the training diverges before there is a sound state, or the store holds another unfinished run.
    """
    return Loop(task, settings, store, sink, ask, watch).run()


def take_saved(task: TrainingTask, store: RunStore, step: int, watch: Watch | None = None) -> dict[str, list[float]]:
    """Let a saved step be a task's result, without a step of training; return the curves up to it, as `train`.

    Raises
    ------
    UserError
        When the step was not kept; see `RunStore.check_saved`.
    """
    saved = store.open_saved(step)
    saved.check_complete({f"{TASK}{name}": tensor for name, tensor in task.state_tensors().items()}, None)
    task.load_state_tensors(saved.task_tensors)
    curves = dict(saved.facts["history"])
    if watch is not None:
        watch.restore([Measurement(*row) for row in saved.facts["measured"]])
        watch.chosen = step
        curves |= watch.curves(step) if watch.rows else {}
    return curves


class Loop:
    """One training on its way; see `train`."""

    def __init__(
        self,
        task: TrainingTask,
        settings: LoopSettings,
        store: RunStore | None,
        sink: Sink,
        ask: Callable[[], None],
        watch: Watch | None,
    ) -> None:
        self.task, self.settings, self.store, self.sink, self.ask = task, settings, store, sink, ask
        self.watch, self.best = watch, BestState(store.saved if store else None)
        self.optimizer = make_optimizer(settings.optimizer, task.parameter_groups(), settings.weight_decay)
        self.generator = torch.Generator().manual_seed(settings.seed)
        device = self.optimizer.param_groups[0]["params"][0].device.type
        self.scaler = GradScaler(device, _FIRST_SCALE, growth_interval=1000, enabled=settings.scale_loss)
        self.on_cpu = device == "cpu"
        self.history, self.pending = dict[str, list[float]](), list[dict[str, torch.Tensor]]()
        self.step, self.over = 0, False
        self.sound = SoundStates()

    def run(self) -> dict[str, list[float]]:
        saved = self.store.open(self.settings.steps, self.settings.resume) if self.store else None
        if saved is not None:
            self._restore(saved)
        work = Work("training", self.settings.steps, self.sink, self.step)
        self._look()
        try:
            while self.step < self.settings.steps and not (self.watch and self.watch.ended):
                self._one_step(work)
                if self.settings.save_every and self.step % self.settings.save_every == 0:
                    self._save()
            self._check_losses()
            self.over = self.step < self.settings.steps
        except Diverged as fault:
            self._fall_back(fault, saved, work)
            self.over = True
        if self.store:
            if saved is None or saved.step < self.step:
                self._save()
            self.store.finish()
        self._take_best(work)
        return self._curves()

    def _look(self) -> None:
        """Measure if it is time, and keep the state if it is the best."""
        if self.watch is None or not self.watch.is_due(self.step, self.settings.steps):
            return
        try:
            with torch.no_grad():
                chosen = self.watch.measure(self.step)
        except BaseException:
            self._save_interrupted()
            raise
        if chosen and self.watch.keeps_best:
            self.best.keep(self.step, self.task.state_tensors())

    def _take_best(self, work: Work) -> None:
        """Let the kept step be the result."""
        watch = self.watch
        if watch is None or not watch.keeps_best or watch.kept is None or watch.kept.step == self.step:
            return
        tensors = self.best.read(watch.kept.step)
        if tensors is None:
            work.report(self.step, sentence=f"The state of step {watch.kept.step} is gone; step {self.step} was kept.")
            return
        self.task.load_state_tensors(tensors)
        what = f"Step {watch.kept.step} of {self.step} was kept: it combines best of those that learned enough."
        work.report(self.step, sentence=what)

    def _curves(self) -> dict[str, list[float]]:
        return self.history if self.watch is None else {**self.history, **self.watch.curves(self.step)}

    def _fall_back(self, fault: Diverged, saved: RunState | None, work: Work) -> None:
        """Go back to the last sound state and let the run end there."""
        found = self.sound.before(fault)
        if found is None and self.store:
            saved = self.store.open(self.settings.steps, True)
        if found is None and saved is not None:
            found = (saved.step, saved.task_tensors)
        if found is None:
            raise UserError(
                f"The loss became infinite or NaN by step {self.step}; lower learning_rate, or use a model whose "
                "weights are sound."
            )
        self.step, tensors = found
        self.task.load_state_tensors(tensors)
        self.history, self.pending = {name: values[: self.step] for name, values in self.history.items()}, []
        if self.watch is not None:
            self.watch.back_to(self.step)
        work.report(
            self.step,
            sentence=f"The training {fault}; it ended there, and the word of step {self.step} was kept. Lower "
            "learning_rate for more steps.",
        )

    def _one_step(self, work: Work) -> None:
        before = self.generator.get_state()
        try:
            self.optimizer.zero_grad(set_to_none=True)
            batches = [self._one_batch(number) for number in range(self.settings.accumulation)]
        except BaseException:
            self.generator.set_state(before)  # The step did not happen: a resumed run draws the same numbers again.
            self._save_interrupted()
            raise
        self._update({name: _mean([parts[name] for parts in batches]) for name in batches[0]})
        told: dict[str, Any] = {}
        if self.step % FLUSH_EVERY == 0 or self.on_cpu:
            self._check_losses()
            told["losses"] = {name: values[-1] for name, values in self.history.items()}
            told |= {"anchors": self.task.active_anchors(), "distance": self.task.distance()}
        self._look()
        try:
            work.report(self.step, score=self.watch.rows[-1].score if self.watch else None, **told)
        except BaseException:
            self._save_interrupted()
            raise

    def _one_batch(self, number: int) -> dict[str, torch.Tensor]:
        """Add the gradient of one of the step's batches; return its losses."""
        self.ask()
        count = self.settings.accumulation
        loss = self.task.loss(self.step * count + number, self.generator)
        self.scaler.scale(loss.total if count == 1 else loss.total * (1 / count)).backward()
        return loss.named()

    def _update(self, losses: dict[str, torch.Tensor]) -> None:
        self.scaler.unscale_(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        # Halved thirteen times in a row: no scale would help.
        if self.scaler.is_enabled() and self.scaler.get_scale() < 1.0:
            raise Diverged("diverged", self.step)
        self.task.after_step(self.step)
        self.pending.append(losses)
        self.step += 1

    def _flush(self) -> bool:
        """Read the collected losses into the history; tell whether they are all finite."""
        first_new = len(self.history.get(TOTAL, []))
        for name in self.pending[0] if self.pending else ():
            self.history.setdefault(name, []).extend(torch.stack([p[name].float() for p in self.pending]).tolist())
        self.pending = []
        # An overflow in float16 is dealt with by the loss scale, which drops the step.
        return self.scaler.is_enabled() or all(math.isfinite(v) for v in self.history.get(TOTAL, [])[first_new:])

    def _check_losses(self) -> None:
        if not self._flush():
            raise Diverged("gave a loss that is infinite or no number", self.step)
        if has_risen(self.history.get(TOTAL, [])):
            raise Diverged("diverged: its loss rose to over five times what it had been", self.step, rising=True)
        self.sound.keep(self.step, self.task.state_tensors)

    def _save(self) -> None:
        self._check_losses()
        self._write_state()

    def _save_interrupted(self) -> None:
        if self._flush():
            self._write_state()

    def _write_state(self) -> None:
        if self.store is None or self.step == 0:
            return
        tensors = {f"{TASK}{name}": tensor for name, tensor in self.task.state_tensors().items()}
        tensors["generator"] = self.generator.get_state()
        states, numbers = optimizer_state(self.optimizer)
        tensors |= {f"{_OPTIMIZER}{name}": tensor for name, tensor in states.items()}
        facts = {
            "history": self.history,
            "loss_scale": self.scaler.get_scale(),
            "good_steps": self.scaler.state_dict().get("_growth_tracker", 0),
            "optimizer": numbers,
        }
        if self.watch is not None:
            facts["measured"] = [(row.step, row.score, row.loss) for row in self.watch.rows]
        self.store.save(RunState(self.step, tensors, facts), self.step if self.over else self.settings.steps)

    def _restore(self, saved: RunState) -> None:
        self.step = saved.step
        wanted = {f"{TASK}{name}": tensor for name, tensor in self.task.state_tensors().items()}
        wanted["generator"] = self.generator.get_state()
        saved.check_complete(wanted, _OPTIMIZER if self.step < self.settings.steps else None)
        self.task.load_state_tensors(saved.task_tensors)
        self.generator.set_state(saved.tensors["generator"])
        if self.step < self.settings.steps:  # a finished run is only read, and its states may be large
            pairs = saved.tensors.items()
            states = {name.removeprefix(_OPTIMIZER): each for name, each in pairs if name.startswith(_OPTIMIZER)}
            load_optimizer_state(self.optimizer, {**states, **saved.facts.get("optimizer", {})})
        self.history = {name: list(values) for name, values in saved.facts["history"].items()}
        if self.watch is not None:
            self.watch.restore([Measurement(*row) for row in saved.facts.get("measured", ())])
        scale = {"scale": saved.facts["loss_scale"], "_growth_tracker": saved.facts["good_steps"]}
        self.scaler.load_state_dict({**self.scaler.state_dict(), **scale})


def _mean(values: list[torch.Tensor]) -> torch.Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean(0)
