"""The words of the text encoder's vocabulary: their letters, the nearest to a vector, and which nouns it can read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

import torch

from ...basics.errors import UserError, listed, quoted
from ..family import tokenizer_of
from .encoder import token_embeddings, word_token_ids

if TYPE_CHECKING:
    from comfy.sd import CLIP

# Byte-pair encoding cuts gibberish into many scraps and real compound words into a few long pieces.
_MOST_PIECES = 3
_LEAST_MEAN_PIECE = 2.5
# Of a noun beside or between digits, as in "3d".
_MOST_PIECES_WITH_DIGITS = 4
# In real nouns that are cut into scraps, hardly any three letters in a row are new to the vocabulary.
_LARGEST_NEW_SHARE = 5
WORD_END = "</w>"


class NearestToken:
    """Finds the vocabulary token whose embedding in a text encoder has the largest cosine with a vector.

    Parameters
    ----------
    which : int
        Position of the text encoder.
    """

    def __init__(self, clip: CLIP, which: int = 0) -> None:
        self._names = tokenizer_of(clip).inv_vocab
        self._unit = torch.nn.functional.normalize(token_embeddings(clip, range(len(self._names)), which), dim=-1)

    def __call__(self, vector: torch.Tensor) -> tuple[str, float]:
        """Return the token's text and the cosine for a vector (D,)."""
        cosine = self._unit @ torch.nn.functional.normalize(vector.detach().float().cpu(), dim=-1)
        best = int(cosine.argmax())
        return "".join(read_letters([self._names[best]])), float(cosine[best])


def usual_norm(clip: CLIP, which: int = 0) -> float:
    """Return the mean length of the vocabulary's embeddings in a text encoder that are not zero."""
    norms = token_embeddings(clip, range(len(tokenizer_of(clip).inv_vocab)), which).norm(dim=1)
    return float(norms[norms > 0].mean())


def read_letters(tokens: Iterable[str]) -> list[str]:
    """Return the letters of a word's tokens; tokens that hold parts of a letter come as one text.

    Parameters
    ----------
    tokens : iterable of str
        As byte-pair encoding writes them: a letter for each byte, ``</w>`` at the word's end.
    """
    texts, part = [], b""
    for token in tokens:
        part += bytes(_byte_of().get(letter, ord("?")) for letter in token.removesuffix(WORD_END))
        try:
            texts.append(part.decode())
        except UnicodeDecodeError:
            continue
        part = b""
    return [*texts, part.decode(errors="replace")] if part else texts


def check_known_word(clip: CLIP, word: str, input_name: str) -> None:
    """Refuse text that is no word to the text encoder.

    Its vocabulary has the word, or cuts it into a few long pieces, or knows nearly every three letters of it in a row.

    Parameters
    ----------
    input_name : str
        The input to be named in the sentence.

    Raises
    ------
    UserError
    """
    names = tokenizer_of(clip).inv_vocab
    for part in re.split(r"[\s'’-]+", unicodedata.normalize("NFC", word)):
        tokens = [names[i] for i in word_token_ids(clip, part)]
        runs = re.findall(r"[^\W\d_]+", part)
        known = bool(re.fullmatch(r"[^\W_]+", part)) and bool(re.search(r"[^\W\d_]", word))
        if runs != [part]:
            known = known and len(tokens) <= _MOST_PIECES_WITH_DIGITS
        for run in runs:
            known = known and _is_word(clip, run)
        if not known:
            raise UserError(
                f"{input_name}: {quoted(part)} is not a word that the text encoder knows "
                f"(it reads {listed(read_letters(tokens), quotes=True)}); type a common English noun, such as cat."
            )


def _is_word(clip: CLIP, letters: str) -> bool:
    pieces = len(word_token_ids(clip, letters))
    if pieces == 1 or (pieces <= _MOST_PIECES and len(letters) >= _LEAST_MEAN_PIECE * pieces):
        return True
    wanted = _triples(letters)
    new = len(wanted - _known_triples(tokenizer_of(clip).inv_vocab.values()))
    return bool(re.search("[aeiouy]", _plain(letters))) and new <= max(1, len(wanted) // _LARGEST_NEW_SHARE)


def _known_triples(tokens: Iterable[str]) -> set[str]:
    whole = ("".join(read_letters([token])) for token in tokens if token.endswith(WORD_END))
    return set().union(*(_triples(word) for word in whole if word.isalpha()))


def _triples(word: str) -> set[str]:
    """Every three letters of a word in a row, its ends counted as letters, without accents."""
    text = f"^{_plain(word)}$"
    return {text[i : i + 3] for i in range(len(text) - 2)}


def _plain(word: str) -> str:
    decomposed = unicodedata.normalize("NFD", word.lower())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


@cache
def _byte_of() -> dict[str, int]:
    """The byte behind each letter of byte-pair encoding: printable ones stand for themselves, the rest follow 255."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + number): byte for number, byte in enumerate(hidden)}
