"""Phrases, the parts of a prompt that stand one per line, and what of them counts when they are compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from ..basics.errors import UserError, quoted

# What separates words wherever it stands; other punctuation, as in "t-shirt" or "u.s.", only at their ends.
_SEPARATORS = re.compile(r'[,;:!?"“”„‟«»‹›…，、；：！？。「」『』\\]|\.{2,}')
_APOSTROPHES = re.compile("[’‘‛ʼ`´]")
_WEIGHT = re.compile(r":\s*[-+]?(?:\d+\.?\d*|\.\d+)\s*\)")
_EMBEDDING = re.compile(r"(?<!\w)embedding:")


def parse_phrases(text: str) -> tuple[str, ...]:
    """Split a text into phrases: one per line, white space folded, empty lines left out."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    return tuple(line for line in lines if line)


def check_phrases(phrases: Sequence[str]) -> None:
    """Refuse empty and repeated phrases by name.

    Raises
    ------
    UserError
    """
    seen: set[str] = set()
    for phrase in phrases:
        if not phrase.strip():
            raise UserError("A phrase of the layout is empty; write one phrase per line in `phrases`.")
        if fold_case(phrase) in seen:
            raise UserError(
                f"The phrase {quoted(phrase)} is given twice; every line of `phrases` needs its own wording."
            )
        seen.add(fold_case(phrase))


def fold_case(text: str) -> str:
    """Return the text in lower case with single spaces."""
    return " ".join(text.lower().split())


def spoken(phrase: str) -> str:
    """Return a phrase's words alone, in lower case with single spaces.

    What is left out: punctuation and quotes beside the words, emphasis with its weights, the possessive 's, and
    "embedding:" before a name. Brackets inside a word stay, as in "fox(v2)" and "crab_(animal)".
    """
    text = unicodedata.normalize("NFC", phrase).casefold()
    text = re.sub(r"\\([()])", r"\1", text)
    text = _EMBEDDING.sub(" ", _WEIGHT.sub(")", _APOSTROPHES.sub("'", text)))
    text = "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in text)
    words = (_bare(word) for word in _SEPARATORS.sub(" ", _without_emphasis(text)).split())
    return " ".join(word for word in words if word)


def with_class_nouns(text: str, nouns: Mapping[str, str]) -> str:
    """Return a text with class nouns in the place of learned words; a word before its class noun is left out.

    Parameters
    ----------
    nouns : mapping of str to str
        The class noun of each learned word, by the name that stands behind ``embedding:``.
    """
    for name, noun in nouns.items():
        word, own = rf"embedding:{re.escape(name)}(?![\w-])", re.escape(noun)
        text = re.sub(word, lambda found, noun=noun: noun, re.sub(rf"{word}\s+(?={own}(?!\w))", "", text))
    return text


def same_text(one: str, other: str) -> bool:
    """Say whether two phrases are the same but for case and spaces."""
    return fold_case(one) == fold_case(other)


def same_words(one: str, other: str) -> bool:
    """Say whether two phrases have the same words, as `spoken` reads them; those without a word have none."""
    return spoken(one) == spoken(other) != ""


def is_punctuation(text: str) -> bool:
    """Say whether a text has nothing but punctuation, brackets, quotes and mathematical signs."""
    return bool(text) and all(re.match("P|Sk|Sm", unicodedata.category(letter)) for letter in text)


def _without_emphasis(text: str) -> str:
    """Put spaces in the place of brackets that do not stand inside a word."""
    inside: list[bool] = []
    letters: list[str] = []
    for letter in text:
        if letter == "(":
            inside.append(bool(letters) and (letters[-1].isalnum() or letters[-1] == "_"))
        if letter in "()":
            keep = bool(inside) and (inside[-1] if letter == "(" else inside.pop())
            letters.append(letter if keep else " ")
        else:
            letters.append(letter)
    return "".join(letters)


def _bare(word: str) -> str:
    first, last = 0, len(word)
    while first < last and is_punctuation(word[first]):
        first += 1
    while first < last and is_punctuation(word[last - 1]) and not (word[last - 1] == ")" and "(" in word[first:last]):
        last -= 1
    return word[first:last].removesuffix("'s")
