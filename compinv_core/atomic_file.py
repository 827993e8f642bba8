"""Writing a file so that a crash leaves either the old or the new content, never half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
