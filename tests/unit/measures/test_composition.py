"""Which things are there, how often, and intervals over groups."""

from __future__ import annotations

import numpy as np
import pytest

from compinv_core.detectors.detections import Detection
from compinv_core.measures.composition import composition
from compinv_core.measures.intervals import Interval, grouped_interval

BOX = (0.0, 0.0, 0.5, 0.5)


def found(*things: tuple[str, float]) -> list[Detection]:
    return [Detection(label, score, BOX) for label, score in things]


def test_things_are_counted_by_their_labels() -> None:
    labels = {"my cat": "cat", "backpack": "backpack"}
    both = composition(found(("cat", 0.9), ("cat", 0.7), ("backpack", 0.8), ("dog", 1.0)), labels)
    assert both.counts == {"my cat": 2, "backpack": 1} and both.scores == {"my cat": 0.9, "backpack": 0.8}
    assert both.all_there and both.duplicates == 1 and both.share == 1
    one = composition(found(("cat", 0.9)), labels)
    assert not one.all_there and one.duplicates == 0 and one.share == 0.5
    assert one.scores == {"my cat": 0.9, "backpack": 0.0}


def test_intervals_draw_whole_groups() -> None:
    alike = grouped_interval([[1.0] * 10, [0.0] * 10])
    mixed = grouped_interval([[float(i % 2)] for i in range(20)])
    assert alike is not None and mixed is not None
    assert alike.mean == mixed.mean == 0.5
    assert (alike.low, alike.high) == (0.0, 1.0)
    assert 0.2 < mixed.low < 0.4 and 0.6 < mixed.high < 0.8
    assert str(alike) == "0.50 [0.00, 1.00]"


def test_intervals_of_little() -> None:
    assert grouped_interval([[], []]) is None
    assert grouped_interval([[0.25, 0.75], []]) == Interval(0.5, 0.5, 0.5)


def test_intervals_cover_the_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        interval = grouped_interval([[value] for value in rng.normal(size=40)], seed=trial)
        covered += interval is not None and interval.low <= 0 <= interval.high
    assert 0.9 <= covered / 200 <= 0.98


@pytest.mark.parametrize(("other", "apart"), [((0.5, 0.4, 0.6), True), ((0.3, 0.2, 0.45), False)])
def test_intervals_are_apart_or_not(other: tuple[float, float, float], apart: bool) -> None:
    here = Interval(0.3, 0.25, 0.35)
    assert here.is_apart_from(Interval(*other)) is apart and Interval(*other).is_apart_from(here) is apart
