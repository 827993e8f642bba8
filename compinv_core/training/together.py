"""Several trainings that take their steps side by side, each with what it has alone: rate, seed, history, end.

What they share is how their losses are computed; the gradients of one may not depend on another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from ..basics.errors import UserError
from .divergence import Diverged
from .events import Event, Sink, Work, nobody
from .loop import FLUSH_EVERY, Loop, LoopSettings
from .task import StepLoss, TrainingTask
from .watch import Watch


@dataclass(frozen=True, eq=False)
class Turn:
    """A member's next batch.

    Attributes
    ----------
    member : int
        Position among the trainings.
    batch : int
        See `TrainingTask.loss`.
    generator : torch.Generator
        Its own.
    """

    member: int
    batch: int
    generator: torch.Generator


@dataclass(frozen=True, eq=False)
class Course:
    """How one of the trainings went.

    Attributes
    ----------
    history : dict of str to list of float
        As `loop.train` returns it.
    told : str
        What the person should know; mostly empty.
    failed : bool
        It came apart before there was a sound state to keep.
    """

    history: dict[str, list[float]]
    told: str = ""
    failed: bool = False


Losses = Callable[[Sequence[Turn]], Iterable[Sequence[StepLoss]]]
"""Gives the losses of all turns, in order, in groups; the gradients of a group are taken before the next is made."""


def train_together(
    tasks: Sequence[TrainingTask],
    settings: Sequence[LoopSettings],
    losses: Losses,
    sink: Sink = nobody,
    ask: Callable[[], None] = lambda: None,
    watches: Sequence[Watch | None] | None = None,
) -> list[Course]:
    """Run tasks to their last steps side by side, from the beginning; nothing is saved on the way.

    With the same random draws each ends where `loop.train` would have brought it. One that diverges ends early, at its
    last sound state, and the others go on without it.

    Parameters
    ----------
    settings : sequence of LoopSettings
        One for each task; without accumulation.
    losses : callable
        What the tasks share, in the place of their `TrainingTask.loss`.
    sink : Sink
        Hears how many steps the longest has done.
    ask : callable
        Called before every step; may raise to stop.
    watches : sequence of Watch or None, optional
        One for each task, as of `loop.train`; each measures by itself.

    Returns
    -------
    list of Course
        One for each task.
    """
    own = watches or [None] * len(tasks)
    members = [_Member(task, each, watch) for task, each, watch in zip(tasks, settings, own, strict=True)]
    work = Work("training", max(each.steps for each in settings), sink)
    while going := [number for number, member in enumerate(members) if member.goes_on]:
        ask()
        for number in going:
            members[number].optimizer.zero_grad(set_to_none=True)
        found = _with_gradients(members, going, losses)
        for number, loss in zip(going, found, strict=True):
            members[number].take(loss)
        work.report(max(members[number].taken for number in going))
    return [member.course() for member in members]


def _with_gradients(members: Sequence[_Member], going: Sequence[int], losses: Losses) -> list[dict[str, torch.Tensor]]:
    """Let the members get their gradients, and return the values of their losses."""
    found: list[dict[str, torch.Tensor]] = []
    waiting = iter(going)
    for group in losses([Turn(number, members[number].step, members[number].generator) for number in going]):
        scalers = [members[number].scaler for number in islice(waiting, len(group))]
        torch.autograd.backward([scaler.scale(loss.total) for scaler, loss in zip(scalers, group, strict=True)])
        found += [loss.named() for loss in group]
    return found


class _Member(Loop):
    """One of the trainings; it gets its gradients from outside. Measured at its start, where there is a watch."""

    def __init__(self, task: TrainingTask, settings: LoopSettings, watch: Watch | None) -> None:
        super().__init__(task, settings, None, nobody, lambda: None, watch)
        self.told, self.failed, self.taken, self._ended = "", False, 0, False
        self._look()

    @property
    def goes_on(self) -> bool:
        return not (self._ended or (self.watch and self.watch.ended)) and self.step < self.settings.steps

    def take(self, losses: dict[str, torch.Tensor]) -> None:
        """Step along the gradients that are there, and look now and then whether all is sound."""
        self.taken += 1
        try:
            self._update(losses)
            if self.step % FLUSH_EVERY == 0 or self.on_cpu:
                self._check_losses()
            self._look()
            if not self.goes_on:
                self._check_losses()
        except Diverged as fault:
            self._end(fault)

    def course(self) -> Course:
        """Return how it went, with the kept step as its result."""
        if self.failed:
            return Course(self.history, self.told, failed=True)
        self._take_best(self._work())
        return Course(self._curves(), self.told)

    def _end(self, fault: Diverged) -> None:
        self._ended = True
        try:
            self._fall_back(fault, None, self._work())
        except UserError as error:
            self.failed, self.told = True, str(error)

    def _work(self) -> Work:
        return Work("training", self.settings.steps, self._listen, self.step)

    def _listen(self, event: Event) -> None:
        self.told = " ".join(filter(None, (self.told, event.sentence)))
