"""The prompt as the host reads and encodes it.

The host's own tokenizer does the reading. It is listened to while it works, so that emphasis, brackets, names of
embeddings and chunks need no rules here. Its encoder leaves vectors of another width out of the row of tokens
(`comfy.sd1_clip.SDClipModel.process_tokens`); what stands behind them moves forward.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from ...basics.errors import UserError, quoted, remark
from ...semantic.widths import parts_of
from ..family import Family, TextEncoder
from .listening import DroppedWord, Listener, Token

if TYPE_CHECKING:
    from comfy.sd import CLIP


@dataclass(frozen=True, eq=False)
class Embedding:
    """An embedding that the host encodes.

    Parameters
    ----------
    name : str
        As its file is called behind ``embedding:``.
    vectors : Tensor (k, D)
    positions : tuple of int, length k
        In the encoded prompt.
    """

    name: str
    vectors: torch.Tensor
    positions: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class EncoderReading:
    """What one text encoder makes of a prompt.

    Parameters
    ----------
    chunks : tuple of tuple of Token
        Encoded one by one and joined: start, content, end and padding.
    weights : tuple of tuple of float
        What the host weighs each position by.
    content : tuple of (int, Token)
        Position in the encoded prompt and token of everything but start, end and padding.
    words : tuple of str
        Ordinary text as the tokenizer got it, without emphasis and embeddings.
    """

    encoder: TextEncoder
    chunks: tuple[tuple[Token, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    content: tuple[tuple[int, Token], ...]
    words: tuple[str, ...]
    embeddings: tuple[Embedding, ...]
    dropped: tuple[DroppedWord, ...]
    partial: tuple[DroppedWord, ...] = ()

    @property
    def tokens(self) -> list[Token]:
        """The tokens of `content`."""
        return [token for _, token in self.content]


@dataclass(frozen=True, eq=False)
class PromptReading:
    """A prompt as the host reads it.

    Parameters
    ----------
    encoders : tuple of EncoderReading
        One for each text encoder of the family.
    """

    text: str
    encoders: tuple[EncoderReading, ...]

    @property
    def words(self) -> str:
        """The ordinary words, without emphasis and embeddings."""
        return " ".join(self.encoders[0].words)

    @cached_property
    def dropped(self) -> tuple[DroppedWord, ...]:
        """What a text encoder cannot use, each once."""
        words = [word for reading in self.encoders for word in reading.dropped]
        first: dict[str, DroppedWord] = {}
        for word in words:
            first.setdefault(word.name, word)
        return tuple(first.values())

    @property
    def names(self) -> list[str]:
        """Names of all embeddings that the prompt asks for."""
        used = (embedding.name for reading in self.encoders for embedding in reading.embeddings)
        return [*used, *(word.name for word in self.dropped)]

    def warn_of_dropped(self, node_name: str) -> None:
        """Say which embeddings of the prompt take no effect or only a part of it, and why."""
        partial = (word for reading in self.encoders for word in reading.partial)
        for word in (*self.dropped, *dict.fromkeys(partial)):
            remark(f"{node_name}: the prompt asks for the embedding {quoted(word.name)}, but {word.reason}.")

    def require_all(self, node_name: str, what: str, where: str) -> None:
        """Refuse a text with an embedding that takes no effect.

        Parameters
        ----------
        node_name : str
            Opens the sentence; may be the name of an input.
        what : str
            What the text is, such as: the phrase "a cat".
        where : str
            What to correct, such as: the phrase.

        Raises
        ------
        UserError
        """
        for word in self.dropped:
            raise UserError(
                f"{node_name}: {what} needs the embedding {quoted(word.name)}, but {word.reason}; {word.cure}, or "
                f"correct {where}."
            )


def read_prompt(
    clip: CLIP, text: str, node_name: str, vectors: Mapping[str, torch.Tensor] | None = None
) -> PromptReading:
    """Read a text as the host reads it.

    Parameters
    ----------
    node_name : str
        Opens the sentence about a text that the host fails at.
    vectors : mapping of str to Tensor (k, D), optional
        Embeddings that have no file, by the name that stands behind ``embedding:``; D as in `Family.widths`.

    Raises
    ------
    UserError
        When the host's tokenizer or encoder would end with an error of its own.
    """
    family = Family.of(node_name, clip=clip)
    encoders = family.text_encoders
    listening = copy.copy(clip)
    listening.tokenizer = copy.copy(clip.tokenizer)
    given = {name: parts_of(tensor, family.widths) for name, tensor in (vectors or {}).items()}
    listeners = [
        Listener(family, encoder, encoder.tokenizer(clip), {name: parts[index] for name, parts in given.items()})
        for index, encoder in enumerate(encoders)
    ]
    for encoder, listener in zip(encoders, listeners, strict=True):
        setattr(listening.tokenizer, encoder.attribute, listener.tokenizer)
    try:
        listening.tokenize(text, return_word_ids=True)
    except Exception as error:
        names = [listener.name for listener in listeners if listener.name]
        what = f"the embedding {quoted(names[-1])}" if names else f"the prompt {quoted(text)}"
        raise UserError(
            f"{node_name}: the host cannot read {what} ({quoted(str(error) or type(error).__name__)}); remove or "
            'correct the word that begins with "embedding:".'
        ) from error
    return PromptReading(text, tuple(_encoded(listener) for listener in listeners))


def _encoded(heard: Listener) -> EncoderReading:
    """Follow what the host's encoder does with the tokens."""
    chunks, weights, content = [], [], []
    positions: dict[int, list[int]] = {}
    start = 0
    for chunk in heard.chunks:
        kept = [(token, word) for token, _, word in chunk if not _left_out(token, heard.encoder)]
        for position, (token, word) in enumerate(kept, start):
            if word:
                content.append((position, token))
                positions.setdefault(word, []).append(position)
        padding = [heard.tokenizer.pad_token] * (len(chunk) - len(kept))
        chunks.append((*(token for token, _ in kept), *padding))
        weights.append(tuple(weight for _, weight, _ in chunk))
        start += len(chunk)
    embeddings = [
        Embedding(*word, tuple(positions[number]))
        for number, word in enumerate(heard.words, 1)
        if isinstance(word, tuple) and number in positions
    ]
    return EncoderReading(
        heard.encoder,
        tuple(chunks),
        tuple(weights),
        tuple(content),
        tuple(word for word in heard.words if isinstance(word, str)),
        tuple(embeddings),
        tuple(heard.dropped),
        tuple(heard.partial),
    )


def _left_out(token: Token, encoder: TextEncoder) -> bool:
    return isinstance(token, torch.Tensor) and token.shape[-1] != encoder.width
