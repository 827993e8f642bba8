"""Lists of nouns: the built-in COCO-80, one-per-line files, and the words typed into a widget."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import UserError

COCO80 = "coco80"

# Enough for any real list of nouns; a larger file is something else that was put into the folder by mistake.
_LARGEST_FILE_BYTES = 1_000_000


def coco80() -> tuple[str, ...]:
    """Return the 80 object nouns of COCO, the anchors of the paper.

    Returns
    -------
    tuple of str
    """
    return read_words(Path(__file__).parent.parent / "data" / "coco80.txt")


def read_words(path: Path) -> tuple[str, ...]:
    """Read a list of nouns: UTF-8, one per line; ``#`` starts a comment; blank lines and duplicates are dropped.

    Parameters
    ----------
    path : Path

    Returns
    -------
    tuple of str

    Raises
    ------
    UserError
        When the file is missing, is not text, or holds no noun.
    """
    if not path.is_file():
        raise UserError(f"The anchor list {path.name!r} does not exist; put it into models/compinv/anchors.")
    if path.stat().st_size > _LARGEST_FILE_BYTES:
        raise UserError(f"The anchor list {path.name!r} is over 1 MB; a list of anchors holds one noun per line.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"The anchor list {path.name!r} is not UTF-8 text; save it as plain text.") from None
    words = merge_words(line.split("#", 1)[0] for line in lines)
    if not words:
        raise UserError(f"The anchor list {path.name!r} holds no noun; write one noun per line.")
    return words


def split_words(text: str) -> tuple[str, ...]:
    """Split what a person typed into a widget: nouns separated by commas, semicolons or line breaks.

    Parameters
    ----------
    text : str

    Returns
    -------
    tuple of str
    """
    return merge_words(re.split(r"[,;\n]", text))


def merge_words(*lists: Iterable[str]) -> tuple[str, ...]:
    """Join lists of nouns in order; blanks are dropped, and a noun that differs only in case or spacing is folded.

    Parameters
    ----------
    *lists : iterable of str

    Returns
    -------
    tuple of str
        As first written, with single spaces.
    """
    merged: dict[str, str] = {}
    for words in lists:
        for word in words:
            tidy = " ".join(word.split())
            if tidy:
                merged.setdefault(tidy.casefold(), tidy)
    return tuple(merged.values())
