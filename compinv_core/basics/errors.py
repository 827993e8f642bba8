"""The error that is meant for the person at the graph, and the words of others inside its sentence."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST_SENTENCE = 700
_LONGEST_NAME = 80
_MOST_LISTED = 8


class UserError(ValueError):
    """An input that the person at the graph can put right.

    The message is one sentence on one line: what was wrong, what was expected, and which node or input cures it. It is
    raised before any long work starts. Line breaks and letters that cannot be shown are folded or escaped here. What is
    too long is cut in its middle, since the cure stands at the end.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(_cut(_legible(" ".join(sentence.split())), _LONGEST_SENTENCE))

    def __reduce__(self) -> tuple:
        return _restored, (str(self),)


# The host puts an exception's module before its name in what it shows; a path of ours says nothing to a person.
UserError.__module__ = "builtins"


def _restored(sentence: str) -> UserError:
    return UserError(sentence)


def quoted(name: object) -> str:
    """Return a name, label or value of somebody else's in quotation marks: one line, legible, at most 80 letters."""
    return f'"{_shown(name)}"'


def listed(names: Iterable[object], quotes: bool = False) -> str:
    """Return names joined by commas: the first eight, and how many more there are."""
    words = [quoted(name) if quotes else _shown(name) for name in names]
    more = len(words) - _MOST_LISTED
    return ", ".join(words[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _shown(name: object) -> str:
    try:
        text = str(name)
    except ValueError:
        # Python does not write whole numbers of thousands of digits.
        text = "a very long number"
    return _cut(_legible(text), _LONGEST_NAME)


def _legible(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode() for letter in text
    )


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    head = longest * 2 // 3
    return f"{text[:head]} … {text[head - longest + 3 :]}"
