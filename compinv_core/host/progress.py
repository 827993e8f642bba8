"""The listeners of long work on the host: the node's progress bar with its previews, the log, and the stop button."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import comfy.model_management
import comfy.utils
from PIL import Image

from .. import logger
from ..training.events import Event, Sink, everybody

_PREVIEW_PIXELS = 512
_SECONDS_BETWEEN_LINES = 60.0


def stop_if_asked(*ignored: Any) -> None:
    """Raise the host's interruption when the person pressed stop.

    Called at every step: the progress bar's own check is throttled and would lag by several steps.
    """
    comfy.model_management.throw_exception_if_processing_interrupted()


def host_listener() -> Sink:
    """Return what a node listens with: the progress bar, and now and then a line in the log."""
    return everybody(progress_bar(), log_lines())


def progress_bar() -> Sink:
    """Return a listener that moves the node's progress bar, a new one for each work, and stops when asked."""
    bars: dict[str, Any] = {}

    def show(event: Event) -> None:
        stop_if_asked()
        if event.work not in bars:
            bars[event.work] = comfy.utils.ProgressBar(event.total)
        picture = None if event.picture is None else ("JPEG", event.picture, _PREVIEW_PIXELS)
        bars[event.work].update_absolute(event.step, event.total, picture)

    return show


def log_lines() -> Sink:
    """Return a listener that logs once a minute how far the work is."""
    last = time.monotonic()

    def log(event: Event) -> None:
        nonlocal last
        if event.sentence:
            logger.info("%s", event.sentence)
        if event.seconds_left is None or time.monotonic() - last < _SECONDS_BETWEEN_LINES:
            return
        last = time.monotonic()
        losses = "".join(f", {name} {value:.4g}" for name, value in event.losses.items())
        logger.info(
            "%s: %d of %d, about %.0f minutes left%s.",
            event.work.capitalize(), event.step, event.total, event.seconds_left / 60, losses,
        )  # fmt: skip

    return log


def with_previews(every: int, paint: Callable[[], Image.Image | None], sink: Sink) -> Sink:
    """Return a listener that hands a training's events on to another, with a picture every so many steps."""

    def hand_on(event: Event) -> None:
        due = event.work == "training" and event.step > 0 and event.step % every == 0
        sink(replace(event, picture=paint()) if due else event)

    return hand_on
