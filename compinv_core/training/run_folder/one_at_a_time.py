"""One process at a time in a folder that long work keeps its state in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from ...basics.errors import UserError, quoted

_LOCK_FILE = ".compinv-lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder while the block runs; the system lets go of it when the process is killed.

    Parameters
    ----------
    folder : Path
        Made if need be, and removed again where it is still empty in the end.

    Raises
    ------
    UserError
        When another process, or another thread of this one, holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / _LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise UserError(
            f"Another ComfyUI is at work in the folder {quoted(folder.name)}; wait until it has ended or stop it, or "
            "choose another name."
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / _LOCK_FILE).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):
            folder.rmdir()
