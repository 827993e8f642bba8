"""A training as the panel on its node shows it: live while it runs, and from its folder at any other time."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import folder_paths

from ...basics.atomic_file import replacing
from ...basics.errors import UserError, remark
from ...basics.json_file import read_json_object
from ...basics.names import check_name
from ...learning.methods import CUSTOM_DIFFUSION, DREAMBOOTH, TEXTUAL_INVERSION
from ...training.events import Event, Sink, Trail
from ...training.run_folder.state import STATE_FILE, RunStore
from ...training.watch import Measurement, at_steps
from ..folders import run_folder
from ..progress import executing_node, server

CURVES_FILE = "curves.json"
_EVENT = "compinv.training"
_SECONDS_BETWEEN_SENDS, _SECONDS_BETWEEN_WRITES = 1.0, 10.0
_PICTURE_PIXELS, _JPEG_QUALITY = 192, 80
_SUFFIXES = {method.name: method.folder_suffix for method in (TEXTUAL_INVERSION, CUSTOM_DIFFUSION, DREAMBOOTH)}

_followed: dict[Path, _Follower] = {}


class _Follower:
    """What is heard of one training, beside what its folder holds."""

    def __init__(self, run: Path) -> None:
        self.store, self.node = RunStore(run, {}, {}), executing_node()
        self._file = run / CURVES_FILE
        self.trail, self.heard = _read_trail(self._file), None
        self._sent = self._written = 0.0
        self._said = False

    def hear(self, event: Event) -> None:
        """Keep and send what a training says; what only shows must not end it."""
        if event.work == "training":
            self._or_say(lambda: self._take(event))

    def end(self) -> None:
        """Keep and send it as it is in the end."""
        if self.heard is not None:
            self._or_say(self.write)
        self._or_say(self.send)

    def _or_say(self, show: Callable[[], None]) -> None:
        try:
            show()
        except (OSError, UserError) as error:
            if not self._said:
                remark(f"What the training's panel shows could not be kept: {error}")
            self._said = True

    def _take(self, event: Event) -> None:
        self.heard = event.after(self.heard)
        self.trail.add(event)
        if event.picture is not None:
            picture, jpeg = event.picture.convert("RGB"), io.BytesIO()
            picture.thumbnail((_PICTURE_PIXELS, _PICTURE_PIXELS))
            picture.save(jpeg, "JPEG", quality=_JPEG_QUALITY)
            self.store.saved.keep_picture(event.step, jpeg.getvalue())
        now = time.monotonic()
        if event.step and now - self._written > _SECONDS_BETWEEN_WRITES:
            self.write()
        # Two points are the first that make a line.
        if now - self._sent > _SECONDS_BETWEEN_SENDS or len(self.trail.rows) == 2:
            self.send()

    def write(self) -> None:
        self._written = time.monotonic()
        if self.trail.rows:
            with replacing(self._file) as temporary:
                temporary.write_text(json.dumps({"rows": self.trail.rows}), encoding="utf-8")

    def send(self) -> None:
        self._sent = time.monotonic()
        host = server()
        if host is not None and self.node is not None:
            host.send_sync(_EVENT, {"node": self.node, **self.shown()})

    def shown(self) -> dict[str, Any]:
        """Return what is drawn: text, curves, saved steps, whether it runs."""
        running = _followed.get(self.store.folder) is self
        saved, text = self._saved_steps()
        if running and self.heard is not None:
            text = self.heard.text
        curves = [{"name": name, "points": points} for name, points in self.trail.curves().items()]
        run = self.store.folder.name
        return {"run": run, "running": running, "text": text, "curves": curves, "saved": saved}

    def _saved_steps(self) -> tuple[list[dict[str, Any]], str]:
        if not (self.store.folder / STATE_FILE).is_file():
            return [], ""
        try:
            header = self.store.read_header()
            rows = [Measurement(*row) for row in header["facts"].get("measured", ())]
        except (TypeError, UserError) as error:
            return [], str(error)
        kept = self.store.kept_steps(header)
        scores, best = at_steps(rows, kept)
        steps = [
            {"step": step, "score": scores.get(step), "best": step == best, "picture": self._picture(step)}
            for step in kept
        ]
        done, wanted = header["step"], header["steps"]
        return steps, f"Finished: {done} steps" if done == wanted else f"Stopped at {done} of {wanted}; queue to go on"

    def _picture(self, step: int) -> dict[str, Any] | None:
        """Return the newest preview by then, as the host's address of pictures takes it."""
        earlier = [number for number in self.store.saved.pictures() if number <= step]
        if not earlier:
            return None
        path = self.store.saved.picture_path(earlier[-1])
        try:
            version = path.stat().st_mtime_ns
        except FileNotFoundError:
            # The training has just replaced it by a later one.
            return None
        folder = path.parent.relative_to(folder_paths.get_output_directory()).as_posix()
        return {"filename": path.name, "subfolder": folder, "type": "output", "version": version}


@contextmanager
def followed(run: Path) -> Iterator[Sink]:
    """Show a training, whose state is in this folder, on the node that is executed, and keep its curves there."""
    follower = _followed[run] = _Follower(run)
    try:
        yield follower.hear
    finally:
        del _followed[run]
        follower.end()


def run_answer(question: dict[str, Any]) -> dict[str, Any]:
    """Return what there is of a training: of ``method`` and ``name``, or the newest that it began, if ``joint``.

    Raises
    ------
    UserError
        Where the name cannot be one.
    """
    method, name = question.get("method"), question.get("name")
    if not isinstance(name, str) or method not in _SUFFIXES:
        raise UserError(f"name is a text, and method one of {', '.join(_SUFFIXES)}.")
    run = run_folder(check_name(name), _SUFFIXES[method])
    if question.get("joint"):
        runs = run.parent.glob(f"{check_name(name)}+*{_SUFFIXES[method]}")
        run = max(runs, key=lambda found: found.stat().st_mtime, default=run)
    return (_followed.get(run) or _Follower(run)).shown()


def _read_trail(file: Path) -> Trail:
    try:
        rows = read_json_object(file)["rows"]
        return Trail([(int(step), {str(name): float(value) for name, value in row.items()}) for step, row in rows])
    except (AttributeError, LookupError, TypeError, ValueError):
        # Of an earlier version, or edited: only what is drawn is lost.
        return Trail()
