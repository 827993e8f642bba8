"""The host's tokenizer, listened to while it reads a text."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.sd1_clip
import torch
from safetensors import safe_open

from ...basics.errors import quoted
from ..family import FAMILIES, Family, TextEncoder, maker_of

if TYPE_CHECKING:
    from comfy.sd1_clip import SDTokenizer

Token = int | torch.Tensor
"""A token's id, or a learned vector (D,) in its place."""

_FILE_ENDINGS = ("", ".safetensors", ".pt", ".bin")


@dataclass(frozen=True)
class DroppedWord:
    """An embedding of the prompt that takes no effect there, or spoils it.

    Parameters
    ----------
    reason, cure : str
        The second half of a sentence, as in "but no file of that name …; train it".
    """

    name: str
    reason: str
    cure: str


@dataclass
class Listener:
    """A copy of one of the host's tokenizers that notes what it reads.

    Attributes
    ----------
    tokenizer : SDTokenizer
        The copy.
    name : str
        The embedding that it read last.
    chunks : list of list of (Token, weight, word id)
        What it returned; word id 0 marks start, end and padding.
    partial : list of DroppedWord
        Embeddings that take effect, but were made for more text encoders than there are.
    words : list of str or (name, Tensor (k, D))
        Ordinary text, without emphasis, and the embeddings that it found; their word ids count from 1.
    """

    family: Family
    encoder: TextEncoder
    original: SDTokenizer
    vectors: Mapping[str, torch.Tensor]
    name: str = ""
    chunks: list[list[tuple[Token, float, int]]] = field(default_factory=list)
    words: list[str | tuple[str, torch.Tensor]] = field(default_factory=list)
    dropped: list[DroppedWord] = field(default_factory=list)
    partial: list[DroppedWord] = field(default_factory=list)

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
        self.name = bare if bare != name and file_of(name, self.tokenizer) is None else name
        if found is not None:
            if found.dim() > 2 and found.shape[1:-1].numel() != 1:
                raise ValueError(f"its tensor has the shape {tuple(found.shape)}")
            self.words.append((self.name, found.reshape(-1, found.shape[-1])))
        if fault := _fault(self.name, found, self.family, self.encoder, self.tokenizer):
            self.dropped.append(fault)
        elif maker := _larger_maker(self.name, self.family, self.tokenizer):
            reason = f"it is one of {maker}, of which only the part for {self.encoder.embedding_key} takes effect here"
            self.partial.append(DroppedWord(self.name, reason, f"load all text encoders of {maker}"))
        return found, name, rest


def _fault(
    name: str, found: torch.Tensor | None, family: Family, encoder: TextEncoder, tokenizer: SDTokenizer
) -> DroppedWord | None:
    """Say why an embedding takes no effect, or spoils the prompt; None where it is sound."""
    if found is None:
        path = file_of(name, tokenizer)
        if path is not None:
            return DroppedWord(name, f"the host cannot read its file {quoted(path.name)}", "save it again")
        cure = "train or copy it there"
        if weight := re.fullmatch(r"(.+):(\d*\.?\d+)", name):
            cure = f"write a weight in brackets, as in (embedding:{weight[1]}:{weight[2]})"
        return DroppedWord(name, "no file of that name is in the embeddings folder", cure)
    if not found.numel():
        return DroppedWord(name, "its file holds no vector", "train it again")
    if found.shape[-1] != encoder.width:
        reason = f"it is {found.shape[-1]} wide and this text encoder {encoder.width}"
        if maker := maker_of(found.shape[-1]):
            reason += f" (the word is one of {maker}, the prompt of {family.name})"
        return DroppedWord(name, reason, f"take one that was made for {family.name}")
    if not torch.isfinite(found.float()).all():
        return DroppedWord(name, "its file holds NaN or infinity, which spoils the whole picture", "train it again")
    return None


def _larger_maker(name: str, family: Family, tokenizer: SDTokenizer) -> str:
    """Return the family that an embedding's file has vectors of other text encoders for; empty where it has none."""
    path = file_of(name, tokenizer)
    if path is None or path.suffix != ".safetensors":
        return ""
    with safe_open(path, "pt") as file:
        keys = set(file.keys())
    makers = (other for other in FAMILIES if set(other.widths) <= keys and not set(other.widths) <= set(family.widths))
    return next((other.name for other in makers), "")


def file_of(name: str, tokenizer: SDTokenizer) -> Path | None:
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
