"""Trainings that come apart: how it is noticed, and the sound states to go back to."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from statistics import mean, median

import torch

WINDOW = 20
"""Steps between two states that are kept, and over which losses are averaged."""
RISE = 5.0
"""How many times the usual loss of a window is too much."""
_FEWEST_WINDOWS = 3
_LARGEST_STATE = 64 * 2**20

State = tuple[int, dict[str, torch.Tensor]]


class Diverged(Exception):
    """The training came apart by a step; `rising` where the losses had been rising for a while."""

    def __init__(self, what: str, step: int, rising: bool = False) -> None:
        super().__init__(f"{what} by step {step}")
        self.rising = rising


class SoundStates:
    """The last two finite states, a window apart; only small ones, such as those of words, are kept."""

    def __init__(self) -> None:
        self._states: deque[State] = deque(maxlen=2)

    def keep(self, step: int, state: Callable[[], Mapping[str, torch.Tensor]]) -> None:
        """Keep a copy of a state that gave finite losses, if the last one is a window old."""
        if self._states and step < self._states[-1][0] + WINDOW:
            return
        tensors = state()
        if sum(tensor.nbytes for tensor in tensors.values()) > _LARGEST_STATE:
            return
        if all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
            self._states.append((step, {name: tensor.detach().clone() for name, tensor in tensors.items()}))

    def before(self, fault: Diverged) -> State | None:
        """Return the state to go back to: the last one, or where losses had been rising the one before."""
        if not self._states:
            return None
        return self._states[0] if fault.rising else self._states[-1]


def has_risen(losses: Sequence[float]) -> bool:
    """Tell whether the mean loss of the last window is over five times that of the median window before.

    Single losses that are not finite do not count: in half precision such a step is dropped.
    """
    count = len(losses) // WINDOW
    if len(losses) % WINDOW or count <= _FEWEST_WINDOWS:
        return False
    parts = (losses[number * WINDOW : (number + 1) * WINDOW] for number in range(count))
    windows = [mean(finite) for part in parts if (finite := [loss for loss in part if math.isfinite(loss)])]
    return len(windows) > _FEWEST_WINDOWS and windows[-1] > RISE * median(windows[:-1])
