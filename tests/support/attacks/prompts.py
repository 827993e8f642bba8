"""Prompts made by a grammar, and a reading of them of its own: from how they were made and the tokenizer's ids alone.

Nothing of the pack is used. A prompt is a tree of pieces, and says itself which text comes to the tokenizer at once,
where embeddings stand, and how the 77 positions of a chunk are filled.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from miniworld.host import host_path

VECTORS = {"my-cat": 1, "my-dog": 3, "owl": 2, "long-word": 11, "fox.v2": 2, "crab_(animal)": 1}
"""Embeddings that there are, and how many vectors they have."""
WIDE, MISSING = {"wide": 2}, ("nowhere", "gone", "no/where")
"""Those of another text encoder, and those without a file: the host encodes neither."""

WORDS = (
    "cat", "a", "the", "red", "ball", "Dog", "xylophonist", "café", "naïve", "Mädchen", "teddy bear", "t-shirt",
    "u.s.", "cat's", "3d", "1girl", "猫", "🐈", "👩‍🚀", "sitting", "on", "grass", "BREAK", "AND",
    "antidisestablishmentarianism",
)  # fmt: skip
NOUNS = ("cat", "ball", "xylophonist", "café", "teddy bear", "Dog", "猫", "t-shirt")
MARKS = (",", ".", "!", "?", ";", ":", "...", "-", "'", '"', "…", "–", "、", r"\(", r"\)")
ODDITIES = (
    "<lora:x:1>", "[cat:dog:0.5]", "{a|b}", "__wild__", "embedding", "Embedding:my-cat", "xembedding:owl", "a:b",
    "&amp;",
    "e\u0301te\u0301", "\u200b", "مرحبا", "ＡＢＣ", "½", "#5", "100%", "\t", "\n\n", "C:\\path", "ﬁ", "\u00a0", "🏳️‍🌈",
)  # fmt: skip
CHUNK, ROOM, LONG = 77, 75, 8

Token = int | tuple[str, int]
"""An id, or a vector of an embedding."""


@dataclass(frozen=True)
class Piece:
    """A piece of text: as it is written, glued to the one before or not; `name` where it is an embedding."""

    text: str
    glued: bool = False
    name: str = ""
    noun: bool = False


@dataclass(frozen=True)
class Prompt:
    """A prompt, its pieces between brackets, and phrases of it.

    Attributes
    ----------
    segments : tuple of tuple of Piece
        What comes to the tokenizer together.
    """

    text: str
    segments: tuple[tuple[Piece, ...], ...]
    phrases: tuple[str, ...]


@cache
def tokenizer() -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(host_path() / "comfy" / "sd1_tokenizer")


@cache
def _inverse() -> dict[int, str]:
    return {number: text for text, number in tokenizer().get_vocab().items()}


def ids(text: str) -> list[Token]:
    """Return the tokenizer's ids, without start and end."""
    return list(tokenizer()(text)["input_ids"][1:-1])


def generated(rng: random.Random) -> Prompt:
    """Return a prompt of one to five chunks."""
    length = rng.choice((1, 2, 4, 8, 8, 16, 40, 120))
    pieces: list[Piece | str] = []
    depth = 0
    for _ in range(length):
        way = rng.random()
        if way < 0.1:
            pieces.append("(")
            depth += 1
        elif way < 0.2 and depth and pieces[-1] != "(":
            pieces.append(rng.choice((")", ":1.3)", ":0.5)", ": 1 )")))
            depth -= 1
        else:
            pieces.append(_piece(rng, bool(pieces) and isinstance(pieces[-1], Piece)))
    pieces += [rng.choice((")", ":1.1)")) for _ in range(depth)]
    segments: list[list[Piece]] = [[]]
    text = ""
    for piece in pieces:
        if isinstance(piece, str):
            # White space outside of a bracket belongs to the segment outside, where it counts for nothing.
            text += rng.choice((" ", "")) if piece == "(" and not segments[-1] else " " if piece == "(" else ""
            text += piece
            segments.append([])
        else:
            glue = piece.glued and bool(segments[-1]) and _can_be_glued(piece, segments[-1])
            segments[-1].append(Piece(piece.text, glue, piece.name, piece.noun))
            text += (
                ""
                if glue or not text or (not segments[-1][1:] and text[-1] == "(")
                else rng.choice((" ", " ", " ", "  ", "\n"))
            ) + piece.text
    kept = tuple(tuple(segment) for segment in segments if segment)
    return Prompt(text, kept, tuple(_phrases(kept, rng)))


def _can_be_glued(piece: Piece, before: list[Piece]) -> bool:
    """Say whether a mark may stand beside the piece before: at an embedding's name, a comma alone."""
    if before[-1].name:
        return piece.text == ","
    return before[-1].text != "embedding" and not (before[-1].glued and len(before) > 1 and before[-2].name)


def _piece(rng: random.Random, after_piece: bool) -> Piece:
    way = rng.random()
    if way < 0.25:
        return Piece(rng.choice(NOUNS), noun=True)
    if way < 0.55:
        return Piece(rng.choice(WORDS))
    if way < 0.7:
        return Piece(rng.choice(MARKS), glued=after_piece and rng.random() < 0.7)
    if way < 0.8:
        return Piece(rng.choice(ODDITIES))
    names = (*VECTORS, *VECTORS, *WIDE, *MISSING)
    name = rng.choice(names)
    return Piece(f"embedding:{name}".replace("(", r"\(").replace(")", r"\)"), name=name)


def _phrases(segments: Sequence[Sequence[Piece]], rng: random.Random) -> list[str]:
    """Choose up to three phrases: pieces in a row that end in a noun or an embedding, and are nothing odd."""
    found: list[str] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        segment = rng.choice(segments) if segments else ()
        ends = [i for i, piece in enumerate(segment) if piece.noun or piece.name]
        if not ends:
            continue
        end = rng.choice(ends)
        start = max(0, end - rng.choice((0, 0, 1, 1, 2, 3)))
        while any(piece.text in ODDITIES or piece.text in MARKS for piece in segment[start : end + 1]):
            start += 1
        text = " ".join(piece.text for piece in segment[start : end + 1])
        text = rng.choice((str, str, str, str.upper))(text) if "embedding" not in text else text
        if text.lower() not in (other.lower() for other in found):
            found.append(text)
    return found


def row(segments: Sequence[Sequence[Piece]]) -> list[tuple[int, Token]]:
    """Return the position and the token of everything that is encoded but start, end and padding."""
    places: list[tuple[int, Token]] = []
    chunk, used, shift = 0, 0, 0
    for group in (group for segment in segments for group in _groups(segment)):
        rest = list(group)
        while rest:
            take = len(rest)
            if used + take > ROOM:
                take = ROOM - used if len(group) >= LONG else 0
            for token in rest[:take]:
                if isinstance(token, tuple) and token[0] in WIDE:
                    # The encoder leaves it out, and what follows in the chunk moves forward.
                    shift += 1
                else:
                    places.append((CHUNK * chunk + 1 + used - shift, token))
                used += 1
            rest = rest[take:]
            if rest:
                chunk, used, shift = chunk + 1, 0, 0
    return places


def _groups(segment: Sequence[Piece]) -> list[list[Token]]:
    """Return what is kept together: a run of text, or an embedding's vectors."""
    groups: list[list[Token]] = []
    text = ""
    for piece in segment:
        if piece.name:
            groups += [ids(text)] if text.strip() else []
            count = VECTORS.get(piece.name) or WIDE.get(piece.name) or 0
            groups += [[(piece.name, number) for number in range(count)]] if count else []
            text = ""
        else:
            text += ("" if piece.glued else " ") + piece.text.replace("\\(", "(").replace("\\)", ")")
    return groups + ([ids(text)] if text.strip() else [])


def expected(prompt: Prompt) -> list[tuple[int, ...]] | None:
    """Return the positions of each phrase's tokens, or None where one needs an embedding that takes no effect.

    A phrase stands wherever its tokens stand in a row, and a longer one goes before a shorter one.
    """
    line = row(prompt.segments)
    taken: set[int] = set()
    found: dict[str, tuple[int, ...]] = {}
    wanted = {phrase: phrase_tokens(phrase) for phrase in prompt.phrases}
    if any(tokens is None for tokens in wanted.values()):
        return None
    for phrase in sorted(prompt.phrases, key=lambda phrase: -len(wanted[phrase] or ())):
        tokens = wanted[phrase] or []
        found[phrase] = _in_a_row(tokens, line, taken)
        taken.update(found[phrase])
    return [found[phrase] for phrase in prompt.phrases]


def _in_a_row(tokens: list[Token], line: list[tuple[int, Token]], taken: set[int]) -> tuple[int, ...]:
    places: list[int] = []
    at = 0
    while at + len(tokens) <= len(line):
        window = line[at : at + len(tokens)]
        fits = [token for _, token in window] == tokens and not taken & {position for position, _ in window}
        places += [position for position, _ in window] if fits else []
        at += len(tokens) if fits else 1
    return tuple(places)


def phrase_tokens(phrase: str) -> list[Token] | None:
    """Return the tokens of a phrase; None where one of its embeddings takes no effect."""
    tokens: list[Token] = []
    text: list[str] = []
    for word in phrase.split():
        if word.startswith("embedding:"):
            name = word.removeprefix("embedding:").replace("\\", "")
            if name not in VECTORS:
                return None
            tokens += ids(" ".join(text)) + [(name, number) for number in range(VECTORS[name])]
            text = []
        else:
            text.append(word)
    return tokens + ids(" ".join(text))


def is_mark(token: Token) -> bool:
    """Tell whether a token is a mark of punctuation."""
    text = "" if isinstance(token, tuple) else tokenizer().decode([token]).strip()
    return bool(text) and all(unicodedata.category(letter)[0] == "P" for letter in text)
