"""Measuring a training as it goes on, keeping the best of its steps, and ending it when nothing improves any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

LAST, BEST = "last", "best composition"
KEEPS = (LAST, BEST)
ALL_STEPS, NO_LONGER = "steps", "when it no longer improves"
STOPS = (ALL_STEPS, NO_LONGER)

SCORE, STEADY = "composition", "steady loss"
"""What the curves of a watch are called."""
LEARNED = 0.8
"""Share of the largest gain so far that a step must have reached to be kept."""
PATIENCE = 4
"""Measurements without any improvement after which nothing is expected any more."""
_RISE = 1.05


@dataclass(frozen=True)
class Measurement:
    """What was measured after some steps.

    Attributes
    ----------
    score : float
        How well the result combines, more is better.
    loss : float
        Reconstruction of fixed photos with fixed noise: how much has been learned.
    """

    step: int
    score: float
    loss: float


class Watch:
    """The measurements of a training, and what follows from them.

    What has been learned is the gain, the loss at the start less the loss now. A step is worth keeping when its gain is
    at least 0.8 of the largest so far; of those the one with the highest score is kept. At the start the score is best
    and nothing is learned, hence both.

    Parameters
    ----------
    measure : callable () -> (score, loss)
    every : int
        Steps between two measurements.
    keep, stop : str
        One of `KEEPS`, one of `STOPS`.

    Attributes
    ----------
    rows : list of Measurement
        The first is of step 0, before anything is learned.
    kept : Measurement or None
        The step that is kept; None as long as nothing has been learned.
    chosen : int or None
        The step that a person has chosen instead.
    """

    def __init__(
        self, measure: Callable[[], tuple[float, float]], every: int, keep: str = LAST, stop: str = ALL_STEPS
    ) -> None:
        self._measure, self._every = measure, every
        self.keeps_best, self._stops = keep == BEST, stop == NO_LONGER
        self.chosen: int | None = None
        self.restore(())

    @property
    def ended(self) -> bool:
        """Whether the training is to stop."""
        return self._stops and self._idle >= PATIENCE

    @property
    def result_step(self) -> int:
        """The step whose word is the result."""
        if self.chosen is not None:
            return self.chosen
        return self.kept.step if self.keeps_best and self.kept else self.rows[-1].step

    def is_due(self, step: int, last: int) -> bool:
        """Tell whether to measure after so many steps: first of all, now and then, and after the last."""
        return not self.rows or ((step % self._every == 0 or step == last) and self.rows[-1].step < step)

    def measure(self, step: int) -> bool:
        """Measure after so many steps; tell whether this is the step to keep now."""
        return self._add(Measurement(step, *self._measure()))

    def restore(self, rows: Sequence[Measurement]) -> None:
        """Go back to these measurements."""
        self.rows: list[Measurement] = []
        self.kept: Measurement | None = None
        self._most, self._mark, self._idle = 0.0, 0.0, 0
        for row in rows:
            self._add(row)

    def back_to(self, step: int) -> None:
        """Forget what was measured after a step."""
        self.restore([row for row in self.rows if row.step <= step])

    def curves(self, steps: int) -> dict[str, list[float]]:
        """Return score and loss for every step: what was measured last by then."""
        held, rows = [], list(self.rows)
        for step in range(1, steps + 1):
            while len(rows) > 1 and rows[1].step <= step:
                rows.pop(0)
            held.append(rows[0])
        return {SCORE: [row.score for row in held], STEADY: [row.loss for row in held]}

    def _add(self, row: Measurement) -> bool:
        self.rows.append(row)
        self._most = max(self._most, self._gain(row))
        chosen = self._most > 0 and self._gain(row) >= LEARNED * self._most
        chosen = chosen and (
            self.kept is None or row.score > self.kept.score or self._gain(self.kept) < LEARNED * self._most
        )
        self._idle += 1
        if chosen or self._most > _RISE * self._mark:
            self._idle, self._mark = 0, self._most
        if chosen:
            self.kept = row
        return chosen

    def _gain(self, row: Measurement) -> float:
        return self.rows[0].loss - row.loss


def at_steps(rows: Sequence[Measurement], steps: Sequence[int]) -> tuple[dict[int, float], int | None]:
    """Return the score of each of these steps, as measured last by then, and which of them a `Watch` would keep."""
    held = [replace(row, step=step) for step in steps for row in [row for row in rows if 0 < row.step <= step][-1:]]
    watch = Watch(lambda: (0.0, 0.0), 1)
    watch.restore([*rows[:1], *held])
    return {row.step: row.score for row in held}, watch.kept.step if watch.kept else None
