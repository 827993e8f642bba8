"""Find the tokens of a phrase in an encoded prompt.

The search runs on the host tokenizer's own output for the whole prompt, so that emphasis "(a ball:1.3)", embeddings of
several vectors and prompts of several 77-token chunks need no rules here. Word id 0 marks start, end and padding.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ...errors import UserError
from ...words.phrases import fold_case

if TYPE_CHECKING:
    from comfy.sd import CLIP

_EMBEDDING = "embedding:"
# The host ends an embedding's name at white space, "<" and "[", and drops trailing commas.
_EMBEDDING_NAME = re.compile(r"(?:(?<=\s)|(?<=\()|^)embedding:([^\s<\[():,]+)")

Token = int | torch.Tensor


@dataclass(frozen=True)
class PhraseSpan:
    """Where a phrase's tokens are in the encoded prompt.

    Parameters
    ----------
    phrase : str
    tokens : tuple of int
        Positions of all its tokens, in the encoded prompt's token axis (77 per chunk), ascending.
    placeholder : tuple of int
        Those of them that are learned vectors; empty where the phrase has no embedding.
    """

    phrase: str
    tokens: tuple[int, ...]
    placeholder: tuple[int, ...]


def find_spans(clip: CLIP, prompt: str, phrases: Sequence[str], node_name: str) -> tuple[PhraseSpan, ...]:
    """Locate every phrase in the prompt.

    A phrase is found wherever its tokens stand in a row; letter case does not matter, and the concept "embedding:my-cat
    cat" may be written "my-cat cat" where the prompt does not hold just that. All places where the prompt repeats a
    phrase count. Longer phrases go first and keep their tokens to themselves: beside "my-cat cat", the phrase "cat"
    means another cat.

    Parameters
    ----------
    clip : CLIP
        Stable Diffusion 1's text encoder; its tokenizer reads prompt and phrases.
    prompt : str
    phrases : sequence of str
    node_name : str
        Opens error messages.

    Returns
    -------
    tuple of PhraseSpan
        In the order of `phrases`.

    Raises
    ------
    UserError
        When a phrase is not in the prompt, or its embedding file is missing.
    """
    names = {name.lower(): name for name in _EMBEDDING_NAME.findall(prompt)}
    content = content_tokens(clip, prompt)
    taken: set[int] = set()
    spans: dict[str, PhraseSpan] = {}
    wanted: dict[str, list[Token]] = {}
    for phrase in phrases:
        require_embeddings(clip, phrase, node_name)
        wanted[phrase] = _tokens(clip, phrase)
        if not _occurrences(wanted[phrase], content, set()):
            spelled = _spell_out(phrase, names)
            require_embeddings(clip, spelled, node_name)
            wanted[phrase] = _tokens(clip, spelled)
    for phrase in sorted(phrases, key=lambda phrase: -len(wanted[phrase])):
        found = _occurrences(wanted[phrase], content, taken)
        if not found:
            raise UserError(_not_found(phrase, prompt, phrases, node_name))
        taken.update(found)
        positions = sorted(content[index][0] for index in found)
        vectors = sorted(content[index][0] for index in found if isinstance(content[index][1], torch.Tensor))
        spans[phrase] = PhraseSpan(phrase, tuple(positions), tuple(vectors))
    return tuple(spans[phrase] for phrase in phrases)


def content_tokens(clip: CLIP, text: str) -> list[tuple[int, Token]]:
    """Return everything of a text but start, end and padding.

    Parameters
    ----------
    clip : CLIP
    text : str

    Returns
    -------
    list of (int, int or Tensor (D,))
        Position in the encoded prompt, and token id or learned vector.
    """
    (chunks,) = clip.tokenize(text, return_word_ids=True).values()
    content: list[tuple[int, Token]] = []
    start = 0
    for chunk in chunks:
        content += [(start + offset, token) for offset, (token, _, word) in enumerate(chunk) if word != 0]
        start += len(chunk)
    return content


def _tokens(clip: CLIP, text: str) -> list[Token]:
    return [token for _, token in content_tokens(clip, text)]


def _occurrences(wanted: Sequence[Token], content: Sequence[tuple[int, Token]], taken: set[int]) -> list[int]:
    found: list[int] = []
    start = 0
    while wanted and start + len(wanted) <= len(content):
        window = range(start, start + len(wanted))
        free = not any(index in taken for index in window)
        if free and all(_equal(content[index][1], token) for index, token in zip(window, wanted, strict=True)):
            found += window
            start += len(wanted)
        else:
            start += 1
    return found


def _equal(left: Token, right: Token) -> bool:
    if isinstance(left, torch.Tensor) or isinstance(right, torch.Tensor):
        return isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor) and torch.equal(left, right)
    return left == right


def _spell_out(phrase: str, names: dict[str, str]) -> str:
    """Put "embedding:" before the words that name an embedding of the prompt."""
    return " ".join(_EMBEDDING + names[word.lower()] if word.lower() in names else word for word in phrase.split())


def require_embeddings(clip: CLIP, phrase: str, node_name: str) -> None:
    """Refuse a phrase with an embedding whose file is missing.

    Parameters
    ----------
    clip : CLIP
    phrase : str
    node_name : str
        Opens the sentence.

    Raises
    ------
    UserError
    """
    for name in _EMBEDDING_NAME.findall(phrase):
        if not any(isinstance(token, torch.Tensor) for _, token in content_tokens(clip, _EMBEDDING + name)):
            raise UserError(
                f'{node_name}: the phrase "{phrase}" needs the embedding "{name}", but no file of that name is in the '
                "embeddings folder; train or copy it there, or correct the phrase and `text`."
            )


def _not_found(phrase: str, prompt: str, phrases: Sequence[str], node_name: str) -> str:
    longer = [other for other in phrases if other != phrase and f" {fold_case(phrase)} " in f" {fold_case(other)} "]
    if longer:
        return (
            f'{node_name}: the phrase "{phrase}" occurs in the prompt only inside "{longer[0]}"; '
            f'mention it once more in `text` ("{prompt}"), or leave it out of `phrases`.'
        )
    return (
        f'{node_name}: the phrase "{phrase}" is not in the prompt "{prompt}"; write it the same way in `text` and in '
        "`phrases`."
    )
