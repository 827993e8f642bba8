"""JSON files that somebody may have edited: read within bounds, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .regular_file import check_regular

# A layout data set of a hundred thousand pictures takes some 60 MB.
_LARGEST = 256_000_000


def read_json_object(path: Path, largest: int = _LARGEST) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises
    ------
    ValueError
        With the reason, where it cannot be read, is no regular file, is larger than so many bytes, nests too deeply, or
        holds something else.
    """
    try:
        check_regular(path, largest)
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(error.strerror or type(error).__name__) from error
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("it holds no object")
    return content
