"""Files of others before they are opened: no pipe, no device, none that would fill the memory."""

from __future__ import annotations

import stat
from pathlib import Path


def check_regular(path: Path, largest: int) -> None:
    """Refuse what is no regular file, or has more bytes than `largest`.

    Raises
    ------
    ValueError
        With the reason.
    OSError
        When there is no such file.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError("it is no regular file")
    if facts.st_size > largest:
        raise ValueError(f"it has {facts.st_size / 1e6:.0f} MB")
