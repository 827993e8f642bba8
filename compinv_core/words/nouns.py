"""Lists of nouns: the built-in COCO-80, one-per-line files, and the words typed into a widget."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..errors import UserError

COCO80 = "coco80"

# Enough for any real list of nouns; a larger file is something else that was put into the folder by mistake.
_LARGEST_FILE_BYTES = 1_000_000

_ARTICLES = ("a", "an", "the", "one")
_IRREGULAR = {
    "children": "child",
    "feet": "foot",
    "geese": "goose",
    "men": "man",
    "mice": "mouse",
    "people": "person",
    "teeth": "tooth",
    "women": "woman",
}


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


def match_labels(nouns: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Say which of a detector's labels means which noun.

    Case, articles, plurals, and the difference between hyphen, underscore and space do not count. A noun that has no
    label of its own takes one that it ends with or that ends with it ("sports ball" and "ball"), provided that there is
    only one such label and no other noun wants it.

    Parameters
    ----------
    nouns : sequence of str
    labels : sequence of str

    Returns
    -------
    dict of str to str
        Noun to label, both as given; nouns without a label are left out, so it may be empty.
    """
    matched = _matches(nouns, labels, same_noun)
    taken = set(matched.values())
    rest = [noun for noun in nouns if noun not in matched]
    compounds = _matches(rest, [label for label in labels if label not in taken], same_head)
    wanted = list(compounds.values())
    matched |= {noun: label for noun, label in compounds.items() if wanted.count(label) == 1}
    return {noun: matched[noun] for noun in nouns if noun in matched}


def same_noun(noun: str, label: str) -> bool:
    """Say whether two texts mean the same noun; case, articles, plurals, hyphens, underscores and spaces do not count.

    Parameters
    ----------
    noun, label : str

    Returns
    -------
    bool
    """
    return _same_forms(_words(noun), _words(label))


def same_head(noun: str, label: str) -> bool:
    """Say whether one of two texts ends with the other, compared as `same_noun` does ("sports ball" and "a ball").

    Parameters
    ----------
    noun, label : str

    Returns
    -------
    bool
        False where both have equally many words.
    """
    short, long = sorted((_words(noun), _words(label)), key=len)
    return 0 < len(short) < len(long) and _same_forms(short, long[-len(short) :])


def _matches(nouns: Sequence[str], labels: Sequence[str], same: Callable[[str, str], bool]) -> dict[str, str]:
    """Nouns that are the same as exactly one label."""
    found = {noun: [label for label in labels if same(noun, label)] for noun in nouns}
    return {noun: candidates[0] for noun, candidates in found.items() if len(candidates) == 1}


def _words(text: str) -> list[str]:
    words = re.sub(r"[-_\s]+", " ", text.casefold()).split()
    return words[1:] if len(words) > 1 and words[0] in _ARTICLES else words


def _forms(words: Sequence[str]) -> set[str]:
    """The noun without spaces, as written and with its last word in what may be its singular."""
    if not words:
        return set()
    *before, last = words
    singulars = {last, _IRREGULAR.get(last, last)}
    if last.endswith("s") and not last.endswith("ss"):
        singulars.add(last[:-1])
        if last.endswith("es"):
            singulars.add(last[:-2])
        if last.endswith("ies"):
            singulars.add(f"{last[:-3]}y")
        if last.endswith("ves"):
            singulars |= {f"{last[:-3]}f", f"{last[:-3]}fe"}
    return {"".join([*before, singular]) for singular in singulars if singular}


def _same_forms(a: Sequence[str], b: Sequence[str]) -> bool:
    # Not the intersection of their forms: what may be a singular of both need not be a word.
    return bool(a and b) and ("".join(a) in _forms(b) or "".join(b) in _forms(a))
