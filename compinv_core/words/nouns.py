"""Nouns: the built-in COCO-80, lists in files and widgets, and which labels of a detector mean which noun."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from ..basics.errors import UserError, quoted
from .phrases import spoken

COCO80 = "coco80"

_QUOTES = ' "“”„«»'
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
    """Return the 80 object nouns of COCO, the anchors of the paper."""
    return read_words(Path(__file__).parent / "coco80.txt")


def read_words(path: Path) -> tuple[str, ...]:
    """Read a list of nouns: UTF-8, one per line or separated as in `split_words`; ``#`` starts a comment.

    Raises
    ------
    UserError
        When the file is missing, is not text, or holds no noun.
    """
    name = quoted(path.name)
    if not path.is_file():
        raise UserError(f"The anchor list {name} does not exist; put it into models/compinv/anchors.")
    if path.stat().st_size > _LARGEST_FILE_BYTES:
        raise UserError(f"The anchor list {name} is over 1 MB; a list of anchors holds one noun per line.")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"The anchor list {name} cannot be read ({error.strerror}); check the file.") from error
    except UnicodeDecodeError:
        text = "\0"
    # UTF-16 and UTF-32 without a mark of their own are UTF-8 full of control characters.
    if any(letter < " " and not letter.isspace() for letter in text):
        raise UserError(f"The anchor list {name} is not UTF-8 text; save it as plain text in UTF-8.")
    words = split_words("\n".join(line.split("#", 1)[0] for line in text.replace("\ufeff", "").splitlines()))
    if not words:
        raise UserError(f"The anchor list {name} holds no noun; write one noun per line.")
    return words


def split_words(text: str) -> tuple[str, ...]:
    """Split a text into nouns, which are separated by commas, semicolons or line breaks and may stand in quotes."""
    return merge_words(word.strip(_QUOTES) for line in text.splitlines() for word in re.split("[,;，；、]", line))


def merge_words(*lists: Iterable[str]) -> tuple[str, ...]:
    """Join lists of nouns in order; blanks are dropped, and a noun that differs only in case or spacing is folded."""
    merged: dict[str, str] = {}
    for words in lists:
        for word in words:
            tidy = " ".join(word.split())
            if tidy:
                merged.setdefault(tidy.casefold(), tidy)
    return tuple(merged.values())


def match_labels(nouns: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Say which of a detector's labels means which noun.

    They are compared as `same_noun` does. A noun that has no label of its own takes one that it ends with or that ends
    with it ("sports ball" and "ball"), provided that there is only one such label and no other noun wants it.

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
    """Say whether two texts mean the same noun.

    What `phrases.spoken` leaves out does not count, nor do articles, plurals, hyphens, underscores and spaces.
    """
    return _same_forms(_words(noun), _words(label))


def same_head(noun: str, label: str) -> bool:
    """Say whether one of two texts ends with the other, compared as `same_noun` does ("sports ball" and "a ball").

    False where both have equally many words.
    """
    short, long = sorted((_words(noun), _words(label)), key=len)
    return 0 < len(short) < len(long) and _same_forms(short, long[-len(short) :])


def _matches(nouns: Sequence[str], labels: Sequence[str], same: Callable[[str, str], bool]) -> dict[str, str]:
    """Nouns that are the same as exactly one label."""
    found = {noun: [label for label in labels if same(noun, label)] for noun in nouns}
    return {noun: candidates[0] for noun, candidates in found.items() if len(candidates) == 1}


@lru_cache(maxsize=4096)
def _words(text: str) -> list[str]:
    words = re.sub("[-_]+", " ", spoken(text)).split()
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
