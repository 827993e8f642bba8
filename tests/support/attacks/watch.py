"""Watches a call that was given bad input: it may return or say a sentence, and nothing else may come of it."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECONDS, MEGABYTES = 600, 1500
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}
_RUNS = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "socket.getaddrinfo"}
_HARMLESS = ("/dev/null", "/proc/self/")

_heard: list[str] | None = None


class TooLate(BaseException):
    """No ordinary exception, so that nothing takes it for a broken file."""


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _heard is None:
        return
    if event in _RUNS:
        _heard.append(f"{event} {arguments[:2]!r:.200}")
    elif event == "open" and isinstance(arguments[0], (str, bytes)) and (arguments[2] or 0) & _WRITING:
        _note_outside(event, arguments[0])
    elif event in _CHANGES:
        for path in arguments[:2]:
            if isinstance(path, (str, bytes, os.PathLike)):
                _note_outside(event, path)


def _note_outside(event: str, path: Any) -> None:
    assert _heard is not None
    place = os.path.realpath(os.fsdecode(path))
    allowed = (os.path.realpath(tempfile.gettempdir()), *_HARMLESS)
    if not place.startswith(allowed) and "__pycache__" not in place:
        _heard.append(f"{event} {place}")


sys.addaudithook(_hear)


def answer(call: Callable[[], Any], folder: Path | None = None) -> str:
    """Make a call and return "" where it returns, or the sentence that it answers with.

    Parameters
    ----------
    folder : Path, optional
        Files beside it, in the folder it stands in, have to stay as they are.

    Raises
    ------
    AssertionError
        When it raises anything but a `UserError` of one sentence, takes too long or too much memory, runs or asks
        something outside, or writes outside.
    """
    neighbours = _listing(folder.parent) if folder is not None else []
    with _bounded() as faults:
        try:
            call()
            sentence = ""
        except Exception as error:
            if type(error).__name__ != "UserError":
                raise AssertionError(f"{type(error).__name__}: {error}") from error
            sentence = str(error)
    assert not faults, faults
    assert folder is None or _listing(folder.parent) == neighbours
    return answer_of(sentence) if sentence else ""


def answer_of(sentence: str) -> str:
    """Return a sentence if it is one: of one line, legible, of a length that can be read."""
    assert re.fullmatch(r".{10,700}[.)]", sentence) and sentence.isprintable(), sentence
    return sentence


@contextmanager
def _bounded() -> Iterator[list[str]]:
    """Interrupt what takes too long, and collect what else went wrong."""
    global _heard

    def late(number: int, frame: Any) -> None:
        raise TooLate(f"no answer within {SECONDS} s")

    Path("/proc/self/clear_refs").write_text("5")
    before, faults = _kilobytes("VmRSS"), []
    earlier = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    _heard = faults
    try:
        yield faults
    finally:
        _heard = None
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)
    grown = (_kilobytes("VmHWM") - before) / 1000
    if grown > MEGABYTES:
        faults.append(f"{grown:.0f} MB more memory")


def _kilobytes(name: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def _listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file())
