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
    step, total : int
        Steps done, and of how many.
    seconds_left : float, optional
        None before the first step of this process.
    losses : mapping of str to float
    anchors : mapping of str to float
        Active anchors with their weights, the heaviest first.
    picture : PIL image, optional
    sentence : str
        What is going on, for people; empty where nothing has changed.
    """

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
    total : int
    sink : Sink
    sentence : str
        Opens the work.
    done : int
        Steps that an earlier process has done.
    """

    def __init__(self, total: int, sink: Sink, sentence: str = "", done: int = 0) -> None:
        self._total, self._sink, self._first, self._begun = total, sink, done, time.monotonic()
        sink(Event(done, total, sentence=sentence))

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
        self._sink(Event(step, self._total, left, losses or {}, anchors or {}, picture, sentence))


def reported(items: Collection[_Item], sink: Sink, sentence: str = "") -> Iterator[_Item]:
    """Yield items and report after each."""
    work = Work(len(items), sink, sentence)
    for number, item in enumerate(items, start=1):
        yield item
        work.report(number)
