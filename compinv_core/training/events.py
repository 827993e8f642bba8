"""What long work reports while it goes on, to one sink: a progress bar, the log, previews, or all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from PIL import Image

_Item = TypeVar("_Item")


@dataclass(frozen=True, eq=False)
class Event:
    """One moment of some work.

    Parameters
    ----------
    work : str
        What is being done: "training", "encoding photos" and so on.
    step, total : int
        Steps done, and of how many.
    seconds_left : float, optional
        None before the first step of this process.
    losses : mapping of str to float
    anchors : mapping of str to float
        Active anchors with their weights, the heaviest first.
    sentence : str
        What has happened, for people; mostly empty.
    """

    work: str
    step: int
    total: int
    seconds_left: float | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    anchors: Mapping[str, float] = field(default_factory=dict)
    picture: Image.Image | None = None
    sentence: str = ""


Sink = Callable[[Event], None]
"""Takes events; may raise to stop the work."""


def nobody(event: Event) -> None:
    """Listen to nothing."""


def everybody(*sinks: Sink) -> Sink:
    """Return a sink that hands every event on to all of these."""

    def hand_on(event: Event) -> None:
        for sink in sinks:
            sink(event)

    return hand_on


class Work:
    """Counts the steps of some work, reckons the time left, and reports.

    Parameters
    ----------
    name : str
        See `Event.work`.
    done : int
        Steps that an earlier process has done.
    """

    def __init__(self, name: str, total: int, sink: Sink, done: int = 0) -> None:
        self._name, self._total, self._sink = name, total, sink
        self._first, self._begun = done, time.monotonic()
        sink(Event(name, done, total))

    def report(
        self,
        step: int,
        *,
        losses: Mapping[str, float] | None = None,
        anchors: Mapping[str, float] | None = None,
        picture: Image.Image | None = None,
        sentence: str = "",
    ) -> None:
        """Report that `step` steps are done; see `Event` for the rest."""
        here = step - self._first
        left = (time.monotonic() - self._begun) / here * (self._total - step) if here > 0 else None
        self._sink(Event(self._name, step, self._total, left, losses or {}, anchors or {}, picture, sentence))


def reported(name: str, items: Collection[_Item], sink: Sink) -> Iterator[_Item]:
    """Yield items and report after each."""
    work = Work(name, len(items), sink)
    for number, item in enumerate(items, start=1):
        yield item
        work.report(number)
