"""Find the tokens of a phrase in an encoded prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ...basics.errors import UserError, quoted
from ...words.phrases import fold_case, is_punctuation, spoken
from .listening import Token
from .reading import EncoderReading, PromptReading, read_prompt
from .vocabulary import WORD_END, read_letters
from .wording import warn_of_wording

if TYPE_CHECKING:
    from comfy.sd import CLIP

_APOSTROPHES = ("'", "’", "‘", "ʼ")

Place = tuple[int, Token]
"""Position in the encoded prompt, and the token there."""

Search = tuple[list[list[Token]], list[list[Place]]]
"""For each text encoder, the tokens to look for and the places to look at."""


@dataclass(frozen=True)
class PhraseSpan:
    """Where a phrase's tokens are in the encoded prompt.

    Positions are those of the encoded prompt's token axis (77 per chunk), ascending.

    Parameters
    ----------
    by_encoder : tuple of tuple of int
        For each text encoder, positions of all tokens of the phrase; none where that one does not have it.
    learned : tuple of tuple of int
        Those of them that are learned vectors; none where the phrase has no embedding.
    """

    phrase: str
    by_encoder: tuple[tuple[int, ...], ...]
    learned: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> tuple[int, ...]:
        """Positions of its tokens in any text encoder."""
        return together(self.by_encoder)

    @property
    def placeholder(self) -> tuple[int, ...]:
        """Positions of its learned vectors in any text encoder."""
        return together(self.learned)


def find_spans(clip: CLIP, prompt: str, phrases: Sequence[str], node_name: str) -> tuple[PhraseSpan, ...]:
    """Locate every phrase in the prompt, and remark on embeddings there that take no effect or are worded otherwise.

    See `catch_phrases` for how.

    Raises
    ------
    UserError
        When a phrase is not in the prompt, or an embedding in it takes no effect.
    """
    reading, caught = catch_phrases(clip, prompt, phrases, node_name)
    reading.warn_of_dropped(node_name)
    warn_of_wording(clip, reading, node_name)
    for found in caught:
        if isinstance(found, UserError):
            raise found
    return tuple(found for found in caught if isinstance(found, PhraseSpan))


def catch_phrases(
    clip: CLIP, prompt: str, phrases: Sequence[str], node_name: str
) -> tuple[PromptReading, tuple[PhraseSpan | UserError, ...]]:
    """Read the prompt and locate the phrases in it.

    A phrase is found wherever its tokens stand in a row; letter case does not matter, and the concept "embedding:my-cat
    cat" may be written "my-cat cat" where the prompt does not hold just that. Where it is not found so, its words are
    looked for without punctuation. All places where the prompt repeats a phrase count. Longer phrases go first and keep
    their tokens to themselves: beside "my-cat cat", the phrase "cat" means another cat.

    Parameters
    ----------
    node_name : str
        Opens error messages.

    Returns
    -------
    reading : PromptReading
    caught : tuple of PhraseSpan or UserError
        In the order of `phrases`; for one that is not found, the sentence that says why.

    Raises
    ------
    UserError
        When the host cannot read the prompt.
    """
    reading = read_prompt(clip, prompt, node_name)
    caught: dict[str, PhraseSpan | UserError] = {}
    wanted: dict[str, Search] = {}
    for phrase in phrases:
        try:
            wanted[phrase] = _search(clip, phrase, reading, node_name)
        except UserError as error:
            caught[phrase] = error
    taken: list[set[int]] = [set() for _ in reading.encoders]
    for phrase in sorted(wanted, key=lambda phrase: -len(wanted[phrase][0][0])):
        found: list[list[Place]] = []
        for tokens, line, known in zip(*wanted[phrase], taken, strict=True):
            found.append(_occurrences(tokens, line, known))
            known.update(position for position, _ in found[-1])
        if not any(found):
            caught[phrase] = UserError(_not_found(phrase, prompt, phrases, node_name))
            continue
        caught[phrase] = PhraseSpan(
            phrase,
            tuple(tuple(sorted(position for position, _ in places)) for places in found),
            tuple(tuple(sorted(p for p, token in places if isinstance(token, torch.Tensor))) for places in found),
        )
    return reading, tuple(caught[phrase] for phrase in phrases)


def read_phrase(clip: CLIP, phrase: str, node_name: str) -> PromptReading:
    """Read a phrase, and refuse one with an embedding that takes no effect.

    Raises
    ------
    UserError
    """
    reading = read_prompt(clip, phrase, node_name)
    _require_all(reading, phrase, node_name)
    return reading


def together(parts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the positions of several text encoders, each once, ascending."""
    return tuple(sorted({position for part in parts for position in part}))


def _require_all(reading: PromptReading, phrase: str, node_name: str) -> None:
    reading.require_all(node_name, f"the phrase {quoted(phrase)}", "the phrase and `text`")


def _search(clip: CLIP, phrase: str, reading: PromptReading, node_name: str) -> Search:
    """Say by which tokens a phrase is found, or was looked for in vain."""

    def search(wording: PromptReading, words_only: bool) -> Search:
        tokens = [[token for _, token in _line(clip, encoder, words_only)] for encoder in wording.encoders]
        return tokens, [_line(clip, encoder, words_only) for encoder in reading.encoders]

    def succeeds(found: Search) -> bool:
        return any(_occurrences(tokens, line, set()) for tokens, line in zip(*found, strict=True))

    written = read_phrase(clip, phrase, node_name)
    if succeeds(found := search(written, False)):
        return found
    names = {name.lower(): name for name in reading.names}
    words = spoken(phrase)
    texts = (_spell_out(phrase, names), _spell_out(words, names), words)
    spelled, *bare = (read_prompt(clip, text, node_name) for text in texts)
    for wording, words_only in ((spelled, False), *((each, True) for each in (written, spelled, *bare))):
        if not wording.dropped and succeeds(found := search(wording, words_only)):
            return found
    _require_all(spelled, phrase, node_name)
    return search(spelled, False)


def _spell_out(phrase: str, names: dict[str, str]) -> str:
    """Put "embedding:" before the words that name an embedding of the prompt."""
    escaped = {word: name.replace("(", r"\(").replace(")", r"\)") for word, name in names.items()}
    return " ".join(f"embedding:{escaped[w.lower()]}" if w.lower() in names else w for w in phrase.split())


def _line(clip: CLIP, reading: EncoderReading, words_only: bool) -> list[Place]:
    """Return the content of an encoded text; without punctuation and possessive 's where only words count."""
    if not words_only:
        return list(reading.content)
    names = reading.encoder.tokenizer(clip).inv_vocab
    kept: list[Place] = []
    word: list[Place] = []
    before = ""
    for position, token in reading.content:
        word.append((position, token))
        if isinstance(token, torch.Tensor):
            text = "embedding"
        elif names[token].endswith(WORD_END):
            text = "".join(read_letters([names[t] for _, t in word if not isinstance(t, torch.Tensor)]))
        else:
            continue
        if not is_punctuation(text) and text != "'s" and not (text == "s" and before in _APOSTROPHES):
            kept += word
        word, before = [], text
    return kept + word


def _occurrences(wanted: Sequence[Token], line: Sequence[Place], taken: set[int]) -> list[Place]:
    found: list[Place] = []
    start = 0
    while wanted and start + len(wanted) <= len(line):
        window = line[start : start + len(wanted)]
        free = not any(position in taken for position, _ in window)
        if free and all(_equal(token, other) for (_, token), other in zip(window, wanted, strict=True)):
            found += window
            start += len(wanted)
        else:
            start += 1
    return found


def _equal(left: Token, right: Token) -> bool:
    if isinstance(left, torch.Tensor) or isinstance(right, torch.Tensor):
        return isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor) and torch.equal(left, right)
    return left == right


def _not_found(phrase: str, prompt: str, phrases: Sequence[str], node_name: str) -> str:
    longer = [other for other in phrases if other != phrase and f" {fold_case(phrase)} " in f" {fold_case(other)} "]
    if longer:
        return (
            f"{node_name}: the phrase {quoted(phrase)} occurs in the prompt only inside {quoted(longer[0])}; "
            f"mention it once more in `text` ({quoted(prompt)}), or leave it out of `phrases`."
        )
    return (
        f"{node_name}: the phrase {quoted(phrase)} is not in the prompt {quoted(prompt)}; write it the same way in "
        "`text` and in `phrases`."
    )
