"""The listeners of long work on the host: the node's progress bar, previews and text, the log, and the stop button."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import comfy.model_management
import comfy.utils
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from PIL import Image

from .. import logger
from ..training.events import Event, Sink, everybody

_PREVIEW_PIXELS = 512
_SECONDS_BETWEEN_LINES, _SECONDS_TO_THE_FIRST = 60.0, 5.0
_SECONDS_BETWEEN_TEXTS = 0.5


def stop_if_asked(*ignored: Any) -> None:
    """Raise the host's interruption when the person pressed stop.

    Called at every step: the progress bar's own check is throttled and would lag by several steps.
    """
    comfy.model_management.throw_exception_if_processing_interrupted()


def host_listener() -> Sink:
    """Return what a node listens with: the progress bar, the text under it, and now and then a line in the log."""
    return everybody(progress_bar(), progress_text(), log_lines())


def server() -> Any:
    """Return the host's server, or None where it runs without one."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def executing_node() -> str | None:
    """Return the id, as the editor has it, of the node that is executed; None outside of an execution."""
    context = get_executing_context()
    return None if context is None else get_progress_state().dynprompt.get_display_node_id(context.node_id)


def progress_text() -> Sink:
    """Return a listener that writes under the node how the work stands, at most twice a second."""
    heard: Event | None = None
    last = -_SECONDS_BETWEEN_TEXTS

    def write(event: Event) -> None:
        nonlocal heard, last
        heard, due = event.after(heard), time.monotonic() - last >= _SECONDS_BETWEEN_TEXTS
        if not (due or event.sentence or event.step == event.total):
            return
        host, node = server(), executing_node()
        if host is not None and node is not None:
            last = time.monotonic()
            host.send_progress_text(heard.text, node)

    return write


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
    last = time.monotonic() - _SECONDS_BETWEEN_LINES + _SECONDS_TO_THE_FIRST

    def log(event: Event) -> None:
        nonlocal last
        if event.sentence:
            logger.info("%s", event.sentence)
        if event.seconds_left is None or time.monotonic() - last < _SECONDS_BETWEEN_LINES:
            return
        last = time.monotonic()
        losses = "".join(f", {name} {value:.4g}" for name, value in event.losses.items())
        logger.info(
            "%s: %d of %d, about %.1f minutes left%s.",
            event.work.capitalize(), event.step, event.total, event.seconds_left / 60, losses,
        )  # fmt: skip

    return log


def with_previews(every: int, paint: Callable[[], Image.Image | None], sink: Sink) -> Sink:
    """Return a listener that hands a training's events on to another, with a picture every so many steps."""

    painted = 0

    def hand_on(event: Event) -> None:
        nonlocal painted
        # The last step is told again when another one's word has become the result.
        due = event.work == "training" and event.step > painted and event.step % every == 0
        if due:
            painted = event.step
        sink(replace(event, picture=paint()) if due else event)

    return hand_on
