"""A prompt found again in conditionings: joined to others, weighed, or given to one of several text encoders only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ...semantic.widths import Widths, parts_of
from ..family import Family

if TYPE_CHECKING:
    from comfy.sd import CLIP

# Encodings of one text differ by rounding, and by as much as a weight of 1.01 does; those of different words by more.
_SAME_ENCODING = 0.02


@dataclass(frozen=True, eq=False)
class KnownPrompt:
    """A prompt as the text encoders give it.

    Parameters
    ----------
    encodings : tuple of Tensor (1, T, D)
        Several where the text encoders change over the sampling.
    widths : Widths
        Of the text encoders' parts.
    chunk : int
        Tokens of a chunk.
    """

    encodings: tuple[torch.Tensor, ...]
    widths: Widths
    chunk: int

    @classmethod
    def of(cls, clip: CLIP, text: str, node_name: str) -> KnownPrompt:
        """Encode a prompt as the host's text encode node does."""
        family = Family.of(node_name, clip=clip)
        encodings = tuple(entry[0] for entry in clip.encode_from_tokens_scheduled(clip.tokenize(text)))
        return cls(encodings, family.widths, family.text_encoders[0].context_length)

    def offsets_in(self, encoded: torch.Tensor | None) -> tuple[int | None, ...]:
        """Return for each text encoder at which position a conditioning (B, T, D) holds the prompt, None for nowhere.

        The position is behind others where prompts were concatenated. All are None where it is nowhere at all.
        """
        if encoded is None or encoded.shape[-1] != sum(self.widths.values()):
            return (None,) * len(self.widths)
        known = zip(*(parts_of(encoding, self.widths) for encoding in self.encodings), strict=True)
        return tuple(
            self._offset(part, wanted) for part, wanted in zip(parts_of(encoded, self.widths), known, strict=True)
        )

    def _offset(self, encoded: torch.Tensor, known: Sequence[torch.Tensor]) -> int | None:
        for encoding in known:
            for offset in range(0, encoded.shape[1] - encoding.shape[1] + 1, self.chunk):
                part = encoded[:, offset : offset + encoding.shape[1]]
                wanted = encoding.to(part).expand_as(part)
                if (part - wanted).norm() <= _SAME_ENCODING * wanted.norm():
                    return offset
        return None


def placed(parts: Sequence[Sequence[int]], offsets: Sequence[int | None]) -> tuple[int, ...]:
    """Return where tokens of a prompt stand in a conditioning that holds it.

    Parameters
    ----------
    parts : sequence of sequences of int
        For each text encoder the positions of the tokens in the prompt.
    offsets : sequence of int or None
        Of `KnownPrompt.offsets_in`.

    Returns
    -------
    tuple of int
        Ascending; those of several text encoders together.
    """
    both = zip(parts, offsets, strict=True)
    return tuple(sorted({offset + token for tokens, offset in both if offset is not None for token in tokens}))
