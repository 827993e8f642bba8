"""Semantic anchors: the nouns that a learned token is kept close to, and the loss that does it (Eq. 6 and 10).

Symbols: e_v (D,) learned input token embedding, v = 1..k; a_i (D,) anchor embedding, i = 1..N; delta_vi non-negative
code of e_v over the anchors, sum 1; lambda in [0, 1] anchor weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ..basics.content import ByContent
from ..basics.errors import UserError
from .sparse_coding import CODERS, sparse_code, sparse_coefficients
from .widths import Widths, parts_of

__all__ = [
    "CODERS",
    "REDUCTIONS",
    "Anchors",
    "anchor_loss",
    "anchor_mean",
    "equivalent_anchor_weight",
    "sparse_code",
    "sparse_coefficients",
    "weighed_alike",
]

REDUCTIONS = ("seq_mean", "dim_mean", "sum", "per_anchor")
# Of the released code's mean over the whole input sequence, whatever the text encoder's context is.
_SEQUENCE_LENGTH = 77


@dataclass(frozen=True, eq=False)
class Anchors(ByContent):
    """A dictionary of nouns with their input token embeddings.

    Attributes
    ----------
    words : tuple of str, length N
    vectors : Tensor (N, D), float32, CPU
        A noun of several tokens is the mean of its tokens.
    token_ids : tuple of tuple of int, length N
        The text encoder's ids for each noun; several text encoders have the same.
    widths : Widths
        Of several text encoders' embeddings, which stand side by side in the vectors.
    """

    words: tuple[str, ...]
    vectors: torch.Tensor
    token_ids: tuple[tuple[int, ...], ...]
    widths: Widths = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (len(self.words) == len(self.vectors) == len(self.token_ids)):
            raise ValueError(
                f"{len(self.words)} words, {len(self.vectors)} vectors and {len(self.token_ids)} token lists."
            )

    def __len__(self) -> int:
        return len(self.words)

    def index(self, word: str) -> int | None:
        """Return the position of a noun, whatever its case and spacing, or None."""
        wanted = " ".join(word.split()).casefold()
        for position, known in enumerate(self.words):
            if known.casefold() == wanted:
                return position
        return None

    def parts(self) -> list[Anchors]:
        """Return each text encoder's own dictionary."""
        return [Anchors(self.words, part, self.token_ids) for part in parts_of(self.vectors, self.widths)]

    def weights(self, code: torch.Tensor) -> dict[str, float]:
        """Return the nouns with a positive weight in a code (N,), heaviest first."""
        return {self.words[i]: float(code[i]) for i in code.argsort(descending=True).tolist() if code[i] > 0}

    def merged(self, other: Anchors) -> Anchors:
        """Return these anchors followed by those of `other` that are new; same tokens count as the same noun.

        Raises
        ------
        UserError
            When the widths differ.
        """
        if self.vectors.shape[1] != other.vectors.shape[1]:
            raise UserError(
                f"The anchors to merge are {other.vectors.shape[1]} wide, these are {self.vectors.shape[1]}; "
                "load both with the same text encoder (input `clip` of Load Anchors)."
            )
        known = set(self.token_ids)
        fresh = [i for i, ids in enumerate(other.token_ids) if ids not in known]
        return Anchors(
            self.words + tuple(other.words[i] for i in fresh),
            torch.cat([self.vectors, other.vectors[fresh]]),
            self.token_ids + tuple(other.token_ids[i] for i in fresh),
            self.widths,
        )


def weighed_alike(weights: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average the anchors' weights in several codes, heaviest first."""
    total: dict[str, float] = {}
    for code in weights:
        for word, weight in code.items():
            total[word] = total.get(word, 0.0) + weight / len(weights)
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def anchor_loss(
    vectors: torch.Tensor, dictionary: torch.Tensor, codes: torch.Tensor, reduction: str = "seq_mean"
) -> torch.Tensor:
    """Weighted squared distance of the learned vectors to their anchors (Eq. 6).

    ``sum_v sum_i delta_vi ||e_v - a_i||^2``, divided according to `reduction`. The sum runs over the vectors, so the
    pull on one vector does not depend on how many there are, nor on the batch size.

    Parameters
    ----------
    vectors : Tensor (k, D)
        Learned embeddings; the only argument that gets a gradient.
    dictionary : Tensor (N, D)
        Anchor embeddings, as they are in the text encoder (not unit-norm).
    codes : Tensor (k, N)
        Non-negative, each row sums to 1.
    reduction : {"seq_mean", "dim_mean", "sum", "per_anchor"}, default "seq_mean"
        ``seq_mean`` divides by 77 * D, the mean over the whole input sequence as in the authors' released code, which
        is what the paper's lambda = 0.95 refers to. ``dim_mean`` divides by D, ``sum`` by 1. ``per_anchor`` is Eq. 6
        taken as a mean over its anchors: it divides by N, the anchors of the whole set, over which the sum over i runs,
        and not by the few of them that delta weighs, whose number changes in training.

    Returns
    -------
    Tensor ()

    Raises
    ------
    UserError
        On an unknown reduction.
    """
    divisor = _divisor(reduction, vectors.shape[-1], len(dictionary))
    distances = (vectors[:, None, :] - dictionary.detach()[None, :, :]).square().sum(-1)
    return (codes.detach() * distances).sum() / divisor


def anchor_mean(dictionary: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Return the points (k, D) that the anchor loss pulls to, ``abar_v = sum_i delta_vi a_i``."""
    return codes @ dictionary


def equivalent_anchor_weight(
    anchor_weight: float, source: str, target: str, width: int = 768, anchors: int = 1
) -> float:
    """Convert lambda between reductions so that one vector feels the same balance of the two losses.

    From ``lambda / (1 - lambda) / divisor`` being equal on both sides. 0.95 under ``seq_mean`` is 0.198 under
    ``dim_mean`` and 3.2e-4 under ``sum``. `source` is the reduction that `anchor_weight` belongs to, `anchors` the
    number of anchors in the set.
    """
    pull = anchor_weight / _divisor(source, width, anchors)
    scaled = pull * _divisor(target, width, anchors)
    return scaled / (scaled + (1.0 - anchor_weight))


def _divisor(reduction: str, width: int, anchors: int) -> float:
    if reduction not in REDUCTIONS:
        raise UserError(f"anchor_reduction is {reduction!r}; choose one of {', '.join(REDUCTIONS)}.")
    sequence = float(_SEQUENCE_LENGTH * width)
    return {"seq_mean": sequence, "dim_mean": float(width), "sum": 1.0, "per_anchor": float(anchors)}[reduction]
