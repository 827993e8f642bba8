"""Phrases: parts of a prompt, one per line."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import UserError


def parse_phrases(text: str) -> tuple[str, ...]:
    """Split a multi-line text into phrases: one per line, white space folded, empty lines left out.

    Parameters
    ----------
    text : str

    Returns
    -------
    tuple of str
    """
    lines = (" ".join(line.split()) for line in text.splitlines())
    return tuple(line for line in lines if line)


def check_phrases(phrases: Sequence[str]) -> None:
    """Refuse empty and repeated phrases.

    Parameters
    ----------
    phrases : sequence of str

    Raises
    ------
    UserError
        Naming the phrase.
    """
    seen: set[str] = set()
    for phrase in phrases:
        if not phrase.strip():
            raise UserError("A phrase of the layout is empty; write one phrase per line in `phrases`.")
        if fold_case(phrase) in seen:
            raise UserError(f'The phrase "{phrase}" is given twice; every line of `phrases` needs its own wording.')
        seen.add(fold_case(phrase))


def fold_case(text: str) -> str:
    """Return the text in lower case with single spaces: how phrases and labels are compared.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
    """
    return " ".join(text.lower().split())
