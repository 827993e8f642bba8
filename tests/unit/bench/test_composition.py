"""What the study of the composition score makes of its rows, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from bench.composition import correlation, kept_by_dvar, kept_by_score, report


def run_of(*stops: tuple[int, float, float, float], curve: list[float] | None = None) -> list[dict[str, Any]]:
    """Stops of step, composition, steady loss and all there."""
    return [
        {
            "step": step, "steps": 10, "composition": composition, "steady_loss": loss, "all_there": there, "own": 1.0,
            "first": 1.0, "loss": loss, "norm": float(step), "curve": curve or [loss] * 10,
        }
        for step, composition, loss, there in stops
    ]  # fmt: skip


def test_correlation_is_of_ranks() -> None:
    run = run_of((1, 0.9, 0.5, 1.0), (5, 0.2, 0.4, 0.5), (10, 0.1, 0.1, 0.4))
    assert correlation(run, "composition") == pytest.approx(1.0) and correlation(run, "norm") == pytest.approx(-1.0)


def test_the_kept_stop_has_learned_and_combines() -> None:
    # Gains .2, .5, .6, .58: the first has learned too little.
    run = run_of((1, 0.9, 0.8, 1.0), (3, 0.5, 0.5, 0.7), (6, 0.2, 0.4, 0.4), (10, 0.3, 0.42, 0.4))
    assert kept_by_score(run)["step"] == 3


def test_dvar_stops_where_the_loss_stands_still() -> None:
    curve = [1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1]
    run = run_of((4, 0.5, 0.4, 0.5), (7, 0.5, 0.1, 0.5), (10, 0.5, 0.1, 0.5), curve=curve)
    assert kept_by_dvar(run)["step"] == 7


def test_the_report_names_every_rule() -> None:
    text = report([run_of((1, 0.9, 0.5, 1.0), (5, 0.2, 0.4, 0.5), (10, 0.1, 0.1, 0.4))])
    assert "| the best stop, in hindsight | 1.00 | 1.00 | 0.10 |" in text and "| last | 0.40 | 1.00 | 1.00 |" in text
