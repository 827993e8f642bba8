"""A learned concept: its name, its class and its token embeddings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch

from .errors import UserError

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_NAME = 64


@dataclass(frozen=True, eq=False)
class Concept:
    """What textual inversion learned, as it flows between nodes.

    Attributes
    ----------
    name : str
        Letters, digits, ``-`` and ``_``.
    superclass : str
        The ordinary noun for the concept, such as ``cat``; empty where unknown.
    vectors : Tensor (k, D), float32, CPU
        Learned input token embeddings.
    metadata : mapping of str to str
        How it was made: loss weights, anchors, steps, seed, versions.
    """

    name: str
    superclass: str
    vectors: torch.Tensor
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))

    @property
    def prompt_word(self) -> str:
        """The word to write in a prompt: ``embedding:NAME``."""
        return f"embedding:{self.name}"


def check_name(name: str, input_name: str = "name") -> str:
    """Return a name that is safe as a file name and readable inside a prompt.

    The host cuts an embedding's name at white space, ``<`` and ``[``, and a path separator would leave the folder.

    Parameters
    ----------
    name : str
        As typed; surrounding white space is dropped.
    input_name : str
        The input to be named in the sentence.

    Returns
    -------
    str

    Raises
    ------
    UserError
    """
    tidy = name.strip()
    if not tidy:
        raise UserError(f"{input_name} is empty; type a name made of letters, digits, - and _, such as my-cat.")
    if len(tidy) > _LONGEST_NAME:
        raise UserError(f"{input_name} is {len(tidy)} characters long; use at most {_LONGEST_NAME}.")
    if not _NAME.fullmatch(tidy):
        raise UserError(f"{input_name} is {tidy!r}; use only letters, digits, - and _ (no path, no spaces).")
    return tidy
