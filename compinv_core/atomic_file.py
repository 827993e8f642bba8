"""Writing a file so that a crash leaves either the old or the new content, never half of one."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from .errors import UserError

# Full, over quota, or larger than files may be.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Windows' own numbers of a full disk, where other systems mean something else by them.
_NO_ROOM_TEXT = _NO_ROOM | ({39, 112} if os.name == "nt" else set())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Hand out a temporary path beside `path`; rename it over `path` when the block ends without an error.

    Parameters
    ----------
    path : Path
        The file to be replaced; its folder is made.

    Yields
    ------
    Path
        To be written in the block; removed if the block fails.

    Raises
    ------
    UserError
        When the disk is full; `path` is then as it was.
    """
    # `remove_leftovers` knows this form.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        usual = temporary.stat().st_mode
        yield temporary
        # safetensors leaves files that only their owner may read.
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
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that processes left in a folder when they were killed while writing.

    Parameters
    ----------
    folder : Path
        That no other process writes to now; may not exist.
    """
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def _is_no_room(error: OSError | SafetensorError) -> bool:
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    # safetensors reports the system's error as text only.
    number = re.search(r"(?:os error |code: )(\d+)", str(error))
    return number is not None and int(number[1]) in _NO_ROOM_TEXT
