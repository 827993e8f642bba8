"""What long work reports: how far it is, how long it takes still, and to whom."""

from __future__ import annotations

import time

import pytest

from compinv_core.training.events import Event, Work, everybody, reported


def test_work_reports_its_steps_and_the_time_left() -> None:
    seen: list[Event] = []
    work = Work("painting", 3, seen.append)
    time.sleep(0.02)
    work.report(1, losses={"loss": 0.5}, anchors={"cat": 1.0})
    work.report(3)
    assert [(event.step, event.total) for event in seen] == [(0, 3), (1, 3), (3, 3)]
    assert {event.work for event in seen} == {"painting"}
    assert seen[0].seconds_left is None
    assert seen[1].seconds_left == pytest.approx(0.04, abs=0.03)
    assert seen[1].losses == {"loss": 0.5}
    assert seen[1].anchors == {"cat": 1.0}
    assert seen[2].seconds_left == 0


def test_steps_of_an_earlier_process_do_not_count_for_the_time() -> None:
    seen: list[Event] = []
    work = Work("training", 100, seen.append, done=90)
    time.sleep(0.02)
    work.report(91)
    assert seen[1].seconds_left == pytest.approx(0.18, abs=0.1)


def test_every_listener_hears_it_in_order_and_may_stop_it() -> None:
    heard: list[str] = []

    def stop(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        everybody(lambda event: heard.append("first"), stop, lambda event: heard.append("third"))(Event("work", 0, 1))
    assert heard == ["first"]


def test_items_are_reported_once_they_are_done() -> None:
    seen: list[int] = []
    for item in reported("letters", "ab", lambda event: seen.append(event.step)):
        seen.append(ord(item))
    assert seen == [0, ord("a"), 1, ord("b"), 2]
