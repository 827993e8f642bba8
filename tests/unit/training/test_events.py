"""What long work reports: how far it is, how long it takes still, and to whom."""

from __future__ import annotations

import itertools

import pytest

from compinv_core.semantic.hold import Distance
from compinv_core.training.events import Event, Trail, Work, everybody, reported


def test_work_reports_its_steps_and_the_time_left() -> None:
    seen: list[Event] = []
    work = Work("painting", 3, seen.append, clock=iter([100.0, 102.0, 106.0]).__next__)
    work.report(1, losses={"loss": 0.5}, anchors={"cat": 1.0})
    work.report(3)
    assert [(event.step, event.total) for event in seen] == [(0, 3), (1, 3), (3, 3)]
    assert {event.work for event in seen} == {"painting"}
    assert seen[0].seconds_left is None
    assert seen[1].seconds_left == pytest.approx(4.0)
    assert seen[1].losses == {"loss": 0.5}
    assert seen[1].anchors == {"cat": 1.0}
    assert seen[2].seconds_left == 0


def test_steps_of_an_earlier_process_do_not_count_for_the_time() -> None:
    seen: list[Event] = []
    work = Work("training", 100, seen.append, done=90, clock=iter([0.0, 2.0]).__next__)
    work.report(91)
    assert seen[1].seconds_left == pytest.approx(18.0)


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


def test_the_text_says_what_is_known() -> None:
    told = Event(
        "training", 120, 1000, 200.0, {"loss": 0.1234, "anchor": 0.02}, {"cat": 0.8, "dog": 0.2}, None,
        Distance(0.31, 0.5), 0.84, "Something happened.",
    )  # fmt: skip
    assert told.text.splitlines() == [
        "Training: 120 of 1000, 3 min left", "loss 0.123, anchor 0.02", "anchors cat 0.80, dog 0.20",
        "moved 0.31 of 0.50 allowed, composition 0.84", "Something happened.",
    ]  # fmt: skip
    assert Event("encoding photos", 1, 3, 12.0).text == "Encoding photos: 1 of 3, 12 s left"
    assert Event("training", 1, 3, distance=Distance(0.3)).text.endswith("moved 0.30")


def test_what_an_event_leaves_out_is_as_before_in_the_same_work() -> None:
    before = Event("training", 20, 100, 8.0, {"loss": 0.5}, {"cat": 1.0}, score=0.9, sentence="said once")
    now = Event("training", 21, 100).after(before)
    assert (now.step, now.losses, now.anchors, now.score, now.sentence) == (21, {"loss": 0.5}, {"cat": 1.0}, 0.9, "")
    assert Event("painting", 1, 2).after(before).losses == {}
    assert Event("training", 100, 100, 0.0).after(before).seconds_left == 0.0


def test_a_trail_keeps_means_of_many_steps_and_forgets_what_is_done_again() -> None:
    trail = Trail()
    for step in range(1, 1001):
        trail.add(Event("training", step, 1000, 1.0, {"loss": float(step)}, distance=Distance(0.5), score=0.9))
    loss = trail.curves()["loss"]
    assert (
        len(loss) <= Trail.MOST and loss[-1][0] == 1000 and set(trail.curves()) == {"loss", "distance", "composition"}
    )
    # Means of so many steps before.
    assert all(earlier < value <= step for (earlier, _), (step, value) in itertools.pairwise(loss))
    trail.add(Event("training", 400, 1000))
    assert trail.rows[-1][0] <= 400 and Trail(trail.rows).curves() == trail.curves()


def test_an_event_without_losses_is_no_point() -> None:
    trail = Trail()
    trail.add(Event("training", 1, 9, score=0.5))
    assert trail.curves() == {}
