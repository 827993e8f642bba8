"""Intervals of means over pictures that come in groups: the pictures of one learned word have a common fate."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

_DRAWS = 2000
_LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and the 95 % bootstrap interval around it."""

    mean: float
    low: float
    high: float

    def is_apart_from(self, other: Interval) -> bool:
        """Whether the two intervals have nothing in common."""
        return self.low > other.high or self.high < other.low

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


def grouped_interval(groups: Collection[Sequence[float]], seed: int = 0) -> Interval | None:
    """Bootstrap the mean over all values by drawing whole groups.

    Parameters
    ----------
    groups : collection of sequences of float
        The values that belong together; empty ones do not count.

    Returns
    -------
    Interval or None
        None without any value. One group alone leaves nothing to draw from: the interval is its mean.
    """
    filled = [values for values in groups if len(values)]
    if not filled:
        return None
    sums, sizes = np.array([sum(values) for values in filled]), np.array([len(values) for values in filled])
    drawn = np.random.default_rng(seed).integers(len(filled), size=(_DRAWS, len(filled)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(sums.sum() / sizes.sum()), float(low), float(high))
