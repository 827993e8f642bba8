"""Writing a file so that a crash leaves either the old or the new content, never half of one, and no litter for ever.

What is being written lies in a hidden file beside it until one rename puts it in place. The hidden file's name says who
writes: what a killed process has left is removed when the next one writes to the same place.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from .errors import UserError, quoted

# Full, over quota, or larger than files may be.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Windows' own numbers of a full disk, where other systems mean something else by them.
_NO_ROOM_TEXT = _NO_ROOM | ({39, 112} if os.name == "nt" else set())
_NOT_WRITABLE = frozenset(
    # The last where the folder was removed meanwhile.
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENOENT}
)

_PREFIX = ".compinv-"
_NAME = re.compile(re.escape(_PREFIX) + r"([0-9a-f]{8})-(\d+)-([0-9a-f]{8})")
_MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
# Tells this process from an earlier one of the same number, as there is in containers.
_PROCESS = secrets.token_hex(4)
_YOUNG_SECONDS = 600
_SECONDS_OF_A_DAY = 86_400


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Hand out a temporary path on the same disk; rename it over `path` when the block ends without an error.

    Parameters
    ----------
    path : Path
        The file to be replaced; its folder is made.

    Yields
    ------
    Path
        To be written in the block; has no suffix. Removed if the block fails.

    Raises
    ------
    UserError
        When the disk is full or the folder cannot be written to; `path` is then as it was.
    """
    temporary = _hidden(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        temporary.touch()
        usual = temporary.stat().st_mode
        yield temporary
        # Some libraries leave files that only their owner may read.
        temporary.chmod(usual)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        if _is_no_room(error):
            raise UserError(
                f"The disk is full: {path.name} could not be written to {path.parent}, and what was there is kept; "
                "free some room on that disk and queue again."
            ) from error
        if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
            raise _not_writable(path.parent, error) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Refuse a folder in which nothing can be written, before the work that it would waste; leaves no trace.

    Parameters
    ----------
    folder : Path
        Where it is missing, it has to be possible to make it.

    Raises
    ------
    UserError
        Naming the folder.
    """
    try:
        nearest = next(place for place in (folder, *folder.parents) if place.exists() or place.is_symlink())
        probe = _hidden(nearest)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _not_writable(folder, error) from error


def remove_leftovers(folder: Path, own: bool = False, young: bool = False) -> None:
    """Remove what processes left in a folder when they were killed while writing.

    Only hidden files of ours, whose process is gone; those of another machine, which may share the disk, after a day.

    Parameters
    ----------
    folder : Path
        May not exist.
    own : bool
        Whether nobody else writes there; hidden temporary files of earlier versions then go, too.
    young : bool
        Also files of the last minutes, which might be those of a process in another container. For the end of some work
        in the folder, or where room is short.
    """
    if own:
        for pattern in (".*.tmp", ".tmp*"):
            for path in folder.glob(pattern):
                with suppress(OSError):
                    path.unlink()
    with suppress(OSError):
        for entry in os.scandir(folder):
            modified = entry.stat(follow_symlinks=False).st_mtime if entry.name.startswith(_PREFIX) else time.time()
            if (young or time.time() - modified > _YOUNG_SECONDS) and _is_left_over(entry.name, modified):
                with suppress(OSError):
                    os.unlink(entry.path)  # noqa: PTH108 (a name, not a path, comes out of the listing)


def _hidden(folder: Path) -> Path:
    # The last digits keep threads of this process apart.
    return folder / f"{_PREFIX}{_MACHINE}-{os.getpid()}-{_PROCESS}-{secrets.token_hex(2)}"


def _is_left_over(name: str, modified: float) -> bool:
    found = _NAME.match(name)
    if found is None:
        return False
    machine, process, token = found[1], int(found[2]), found[3]
    if machine != _MACHINE:
        return time.time() - modified > _SECONDS_OF_A_DAY
    if process == os.getpid():
        return token != _PROCESS
    import psutil

    try:
        # A younger process has got the number since.
        return psutil.Process(process).create_time() > modified
    except psutil.Error:
        return not psutil.pid_exists(process)


def _not_writable(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"Nothing can be written to the folder {quoted(folder)} ({error.strerror}); give ComfyUI the right to write "
        "there, leave the folder where it is, move away a file that has a folder's name, or choose another folder."
    )


def _is_no_room(error: OSError | SafetensorError) -> bool:
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    # safetensors reports the system's error as text only.
    number = re.search(r"(?:os error |code: )(\d+)", str(error))
    return number is not None and int(number[1]) in _NO_ROOM_TEXT
