"""What is said to the person at the graph: errors, remarks on what goes on all the same, and others' words in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple

from .. import logger

Severity = Literal["warning", "note"]

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


class Remark(NamedTuple):
    """A sentence on one line about what does not stop the work: a likely mistake with its cure, or a note."""

    sentence: str
    severity: Severity = "warning"


class Remarks:
    """What one node has to say: while it runs, and later on what it leaves behind, such as a model that is sampled.

    Parameters
    ----------
    tell : callable, optional
        Called with all that stands whenever that changes.

    Attributes
    ----------
    said : list of Remark
        Each once; always the same list.
    """

    def __init__(self, tell: Callable[[list[Remark]], None] = lambda said: None) -> None:
        self.said: list[Remark] = []
        self._tell = tell

    def say(self, sentence: str, severity: Severity = "warning") -> Remark:
        """Log a remark and tell it."""
        remark = Remark(" ".join(sentence.split()), severity)
        if remark not in self.said:
            (logger.warning if severity == "warning" else logger.info)("%s", remark.sentence)
            self.said.append(remark)
            self._tell(self.said)
        return remark

    def take_back(self, remarks: Iterable[Remark]) -> None:
        """Let remarks stand no longer."""
        self.said[:] = [each for each in self.said if each not in set(remarks)]
        self._tell(self.said)


_here: ContextVar[Remarks | None] = ContextVar("compinv_remarks", default=None)


@contextmanager
def remarks_to(node: Remarks) -> Iterator[None]:
    """Let what is remarked in the block be said by a node."""
    token = _here.set(node)
    try:
        yield
    finally:
        _here.reset(token)


def remarks_here() -> Remarks:
    """Return what the running node says its remarks by; outside any node they are logged alone."""
    return _here.get() or Remarks()


def remark(sentence: str, severity: Severity = "warning") -> None:
    """Say a sentence on the node that runs, and in the log."""
    remarks_here().say(sentence, severity)


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
