"""What long work reports while it goes on, to one sink: a progress bar, the log, previews, or all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from PIL import Image

    from ..semantic.hold import Distance

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
    distance : Distance, optional
        How far what is learned has moved.
    score : float, optional
        How well it combines, as measured last.
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
    distance: Distance | None = None
    score: float | None = None
    sentence: str = ""

    def after(self, earlier: Event | None) -> Event:
        """Return this event with what only an earlier one of the same work told: losses are told now and then."""
        if earlier is None or earlier.work != self.work:
            return self
        names = ("seconds_left", "losses", "anchors", "distance", "score")
        missing = [name for name in names if getattr(self, name) in (None, {})]
        return replace(self, **{name: getattr(earlier, name) for name in missing})

    @property
    def text(self) -> str:
        """The lines for the person at the graph."""
        lines = [f"{self.work.capitalize()}: {self.step} of {self.total}" + _left(self.seconds_left)]
        if self.losses:
            lines.append(", ".join(f"{name} {value:.3g}" for name, value in self.losses.items()))
        if self.anchors:
            lines.append("anchors " + ", ".join(f"{word} {weight:.2f}" for word, weight in self.anchors.items()))
        told = []
        if self.distance is not None:
            allowed = "" if self.distance.allowed is None else f" of {self.distance.allowed:.2f} allowed"
            told.append(f"moved {self.distance.value:.2f}{allowed}")
        if self.score is not None:
            told.append(f"composition {self.score:.2f}")
        return "\n".join([*lines, *([", ".join(told)] if told else []), *filter(None, [self.sentence])])


def _left(seconds: float | None) -> str:
    if not seconds:
        return ""
    if seconds < 90:
        return f", {seconds:.0f} s left"
    return f", {seconds / 60:.0f} min left" if seconds < 5400 else f", {seconds / 3600:.1f} h left"


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
    clock : callable
        Seconds.
    """

    def __init__(
        self, name: str, total: int, sink: Sink, done: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._total, self._sink, self._clock = name, total, sink, clock
        self._first, self._begun = done, clock()
        sink(Event(name, done, total))

    def report(
        self,
        step: int,
        *,
        losses: Mapping[str, float] | None = None,
        anchors: Mapping[str, float] | None = None,
        picture: Image.Image | None = None,
        distance: Distance | None = None,
        score: float | None = None,
        sentence: str = "",
    ) -> None:
        """Report that `step` steps are done; see `Event` for the rest."""
        here = step - self._first
        left = (self._clock() - self._begun) / here * (self._total - step) if here > 0 else None
        told = (losses or {}, anchors or {}, picture, distance, score, sentence)
        self._sink(Event(self._name, step, self._total, left, *told))


def reported(name: str, items: Collection[_Item], sink: Sink) -> Iterator[_Item]:
    """Yield items and report after each."""
    work = Work(name, len(items), sink)
    for number, item in enumerate(items, start=1):
        yield item
        work.report(number)


class Trail:
    """What the curves of a training are drawn from: a few hundred points, each the mean of the steps since the last.

    Parameters
    ----------
    rows : sequence of (int, mapping of str to float)
        Steps and what was told after them, in order.
    """

    MOST = 300

    def __init__(self, rows: Sequence[tuple[int, Mapping[str, float]]] = ()) -> None:
        self.rows = [(step, dict(values)) for step, values in rows]

    def add(self, event: Event) -> None:
        """Take what an event tells of its step; what was after that step is no part of the training any more."""
        self.rows = [row for row in self.rows if row[0] <= event.step]
        if not event.losses or (self.rows and self.rows[-1][0] == event.step):
            return
        values = dict(event.losses)
        if event.distance is not None:
            values["distance"] = event.distance.value
        if event.score is not None:
            values["composition"] = event.score
        self.rows.append((event.step, values))
        if len(self.rows) > self.MOST:
            pairs = zip(self.rows[::2], self.rows[1::2], strict=False)
            self.rows = [
                (step, {name: (first.get(name, value) + value) / 2 for name, value in second.items()})
                for (_, first), (step, second) in pairs
            ] + self.rows[len(self.rows) // 2 * 2 :]

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Return the points (step, value) of each curve."""
        names = list(dict.fromkeys(name for _, values in self.rows for name in values))
        return {name: [(step, values[name]) for step, values in self.rows if name in values] for name in names}
