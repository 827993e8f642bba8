"""The prompt as the host reads and encodes it.

The host's own tokenizer does the reading. It is listened to while it works, so that emphasis, brackets, names of
embeddings and chunks need no rules here. Its encoder leaves vectors of another width out of the row of tokens
(`comfy.sd1_clip.SDClipModel.process_tokens`); what stands behind them moves forward.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.sd1_clip
import torch

from ... import logger
from ...errors import UserError, quoted
from ..family import Family, TextEncoder

if TYPE_CHECKING:
    from comfy.sd import CLIP
    from comfy.sd1_clip import SDTokenizer

Token = int | torch.Tensor
"""A token's id, or a learned vector (D,) in its place."""

_FILE_ENDINGS = ("", ".safetensors", ".pt", ".bin")


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


@dataclass(frozen=True)
class DroppedWord:
    """An embedding of the prompt that takes no effect there, or spoils it.

    Parameters
    ----------
    name : str
    reason : str
        The second half of a sentence, as in "but no file of that name …".
    """

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class EncoderReading:
    """What one text encoder makes of a prompt.

    Parameters
    ----------
    encoder : TextEncoder
    chunks : tuple of tuple of Token
        Encoded one by one and joined: start, content, end and padding.
    weights : tuple of tuple of float
        What the host weighs each position by.
    content : tuple of (int, Token)
        Position in the encoded prompt and token of everything but start, end and padding.
    words : tuple of str
        Ordinary text as the tokenizer got it, without emphasis and embeddings.
    embeddings : tuple of Embedding
    dropped : tuple of DroppedWord
    """

    encoder: TextEncoder
    chunks: tuple[tuple[Token, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    content: tuple[tuple[int, Token], ...]
    words: tuple[str, ...]
    embeddings: tuple[Embedding, ...]
    dropped: tuple[DroppedWord, ...]

    @property
    def tokens(self) -> list[Token]:
        """The tokens of `content`."""
        return [token for _, token in self.content]


@dataclass(frozen=True, eq=False)
class PromptReading:
    """A prompt as the host reads it.

    Parameters
    ----------
    text : str
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
        """What no text encoder can use, each once."""
        first, *others = (reading.dropped for reading in self.encoders)
        names = [{word.name for word in dropped} for dropped in others]
        return tuple(word for word in dict.fromkeys(first) if all(word.name in known for known in names))

    @property
    def names(self) -> list[str]:
        """Names of all embeddings that the prompt asks for."""
        used = (embedding.name for reading in self.encoders for embedding in reading.embeddings)
        return [*used, *(word.name for word in self.dropped)]

    def warn_of_dropped(self, node_name: str) -> None:
        """Say in the log which embeddings of the prompt take no effect, and why."""
        for word in self.dropped:
            logger.warning(
                "%s: the prompt asks for the embedding %s, but %s.", node_name, quoted(word.name), word.reason
            )

    def require_all(self, node_name: str, what: str, cure: str) -> None:
        """Refuse a text with an embedding that takes no effect.

        Parameters
        ----------
        node_name : str
            Opens the sentence; may be the name of an input.
        what : str
            What the text is, such as: the phrase "a cat".
        cure : str
            Ends the sentence.

        Raises
        ------
        UserError
        """
        for word in self.dropped:
            raise UserError(f"{node_name}: {what} needs the embedding {quoted(word.name)}, but {word.reason}; {cure}.")


def read_prompt(
    clip: CLIP, text: str, node_name: str, vectors: Mapping[str, torch.Tensor] | None = None
) -> PromptReading:
    """Read a text as the host reads it.

    Parameters
    ----------
    clip : CLIP
    text : str
    node_name : str
        Opens the sentence about a text that the host fails at.
    vectors : mapping of str to Tensor (k, D), optional
        Embeddings that have no file, by the name that stands behind ``embedding:``.

    Returns
    -------
    PromptReading

    Raises
    ------
    UserError
        When the host's tokenizer or encoder would end with an error of its own.
    """
    encoders = Family.of(node_name, clip=clip).text_encoders
    listening = copy.copy(clip)
    listening.tokenizer = copy.copy(clip.tokenizer)
    listeners = [_Listener(encoder, encoder.tokenizer(clip), vectors or {}) for encoder in encoders]
    for encoder, listener in zip(encoders, listeners, strict=True):
        setattr(listening.tokenizer, encoder.attribute, listener.tokenizer)
    try:
        listening.tokenize(text, return_word_ids=True)
    except Exception as error:
        names = [listener.name for listener in listeners if listener.name]
        what = f"the embedding {quoted(names[-1])}" if names else f"the prompt {quoted(text)}"
        raise UserError(
            f"{node_name}: the host cannot read {what} ({quoted(error)}); remove or correct the word that begins with "
            '"embedding:".'
        ) from error
    return PromptReading(text, tuple(listener.reading() for listener in listeners))


@dataclass
class _Listener:
    """A copy of one of the host's tokenizers that notes what it reads, in the order of its word ids."""

    encoder: TextEncoder
    original: SDTokenizer
    vectors: Mapping[str, torch.Tensor]
    name: str = ""
    chunks: list[list[tuple[Token, float, int]]] = field(default_factory=list)
    words: list[str | tuple[str, torch.Tensor]] = field(default_factory=list)
    dropped: list[DroppedWord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokenizer: Any = copy.copy(self.original)
        if self.vectors and self.tokenizer.embedding_directory is None:
            self.tokenizer.embedding_directory = []
        self._look_up = self.tokenizer._try_get_embedding
        whole = self.tokenizer.tokenize_with_weights

        def read_all(*args: Any, **kwargs: Any) -> Any:
            self.chunks = whole(*args, **kwargs)
            return self.chunks

        self.tokenizer.tokenizer = self._read_words
        self.tokenizer._try_get_embedding = self._read_embedding
        self.tokenizer.tokenize_with_weights = read_all

    def _read_words(self, text: str) -> Any:
        self.words.append(text)
        return self.original.tokenizer(text)

    def _read_embedding(self, written: str) -> tuple[torch.Tensor | None, str, str]:
        self.name, *rest = written.split(None, 1) or [""]
        if self.name in self.vectors:
            found = self.vectors[self.name]
            self.words.append((self.name, found))
            return found, self.name, "".join(rest)
        found, name, rest = self._look_up(written)
        # The host tries a name with the commas around it before it tries the name alone.
        bare = name.strip(",")
        self.name = bare if bare != name and _file_of(name, self.tokenizer) is None else name
        if found is not None:
            if found.dim() > 2 and found.shape[1:-1].numel() != 1:
                raise ValueError(f"its tensor has the shape {tuple(found.shape)}")
            self.words.append((self.name, found.reshape(-1, found.shape[-1])))
        if fault := _fault(self.name, found, self.encoder, self.tokenizer):
            self.dropped.append(DroppedWord(self.name, fault))
        return found, name, rest

    def reading(self) -> EncoderReading:
        """Put together what was noted, once the host has read the text."""
        chunks, weights, content = [], [], []
        positions: dict[int, list[int]] = {}
        start = 0
        for chunk in self.chunks:
            kept = [(token, word) for token, _, word in chunk if not self._left_out(token)]
            for position, (token, word) in enumerate(kept, start):
                if word:
                    content.append((position, token))
                    positions.setdefault(word, []).append(position)
            padding = [self.tokenizer.pad_token] * (len(chunk) - len(kept))
            chunks.append((*(token for token, _ in kept), *padding))
            weights.append(tuple(weight for _, weight, _ in chunk))
            start += len(chunk)
        embeddings = [
            Embedding(*word, tuple(positions[number]))
            for number, word in enumerate(self.words, 1)
            if isinstance(word, tuple) and number in positions
        ]
        return EncoderReading(
            self.encoder,
            tuple(chunks),
            tuple(weights),
            tuple(content),
            tuple(word for word in self.words if isinstance(word, str)),
            tuple(embeddings),
            tuple(self.dropped),
        )

    def _left_out(self, token: Token) -> bool:
        return isinstance(token, torch.Tensor) and token.shape[-1] != self.encoder.width


def _fault(name: str, found: torch.Tensor | None, encoder: TextEncoder, tokenizer: SDTokenizer) -> str:
    """Return why an embedding takes no effect, or spoils the prompt; empty where it is sound."""
    if found is None:
        path = _file_of(name, tokenizer)
        if path is None:
            return "no file of that name is in the embeddings folder"
        return f"the host cannot read its file {quoted(path.name)}"
    if not found.numel():
        return "its file holds no vector"
    if found.shape[-1] != encoder.width:
        return f"it is {found.shape[-1]} wide and this text encoder {encoder.width}: it was made for another model"
    if not torch.isfinite(found.float()).all():
        return "its file holds NaN or infinity, which spoils the whole picture"
    return ""


def _file_of(name: str, tokenizer: SDTokenizer) -> Path | None:
    """Return the file that the host looks for under an embedding's name."""
    folders = tokenizer.embedding_directory
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return None
    for folder in comfy.sd1_clip.expand_directory_list([folders] if isinstance(folders, str) else folders):
        for ending in _FILE_ENDINGS:
            path = Path(folder, name + ending)
            # A name may be too long for a file, or hold what no file's name can.
            with suppress(OSError, ValueError):
                if path.is_file():
                    return path
    return None
