"""What can be said of a word by looking at its vectors: how far it has left the words, and whether that matters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from .adjustment import anchor_codes
from .anchors import Anchors
from .composition import Composition

NEAR, FAR = 0.75, 0.4
"""Mean cosines with the anchor points from which on a word counts as near, and below which as far."""
_LONG = 2.0
_NEAREST = 5
_SAMPLED, _SEED = 1000, 0


@dataclass(frozen=True)
class VectorFacts:
    """What is known of one vector.

    Attributes
    ----------
    norm, norm_percentile : float
        Its length, and the share of the vocabulary's words (in percent) that are shorter.
    nearest : tuple of (str, float)
        The nearest words of the vocabulary by cosine, nearest first.
    distance_percentile : float
        Share of the vocabulary's words (in percent) whose own nearest neighbour is nearer, by angle.
    anchors : mapping of str to float
        Its code, heaviest first.
    entropy : float
        Of the code in bits: 0 for one anchor, 2 for four alike.
    cosine : float
        With its anchor point.
    usual_norm : float
        Median length of the vocabulary's words.
    encoder : str
        Name of the text encoder, where there are several.
    """

    norm: float
    norm_percentile: float
    nearest: tuple[tuple[str, float], ...]
    distance_percentile: float
    anchors: Mapping[str, float]
    entropy: float
    cosine: float
    usual_norm: float
    encoder: str = ""


@dataclass(frozen=True)
class Inspection:
    """A word's vectors, in each text encoder, and how it combines where that was measured."""

    vectors: tuple[VectorFacts, ...]
    composition: Composition | None = None

    @classmethod
    def of(cls, looks: Sequence[Inspection], composition: Composition | None = None) -> Inspection:
        """Join what was found in several text encoders."""
        return cls(tuple(facts for look in looks for facts in look.vectors), composition)

    @property
    def usual_norm(self) -> float:
        """Median length of the vocabulary's words, a mean over the text encoders."""
        return sum(facts.usual_norm for facts in self.vectors) / len(self.vectors)

    def numbered(self) -> list[tuple[int, VectorFacts]]:
        """Return the vectors with their number in the word, from 1."""
        first = self.vectors[0].encoder
        count = sum(facts.encoder == first for facts in self.vectors)
        return [(1 + index % count, facts) for index, facts in enumerate(self.vectors)]

    @property
    def verdict(self) -> str:
        """A plain sentence or two on whether the word should combine."""
        cosine, norm = (sum(getattr(v, name) for v in self.vectors) / len(self.vectors) for name in ("cosine", "norm"))
        if cosine >= NEAR:
            said = "The word stands near its nouns and should combine with others."
        elif cosine >= FAR:
            said = "The word has moved away from its nouns; beside another thing it may take over."
        else:
            said = "The word has left the nouns; beside another thing it is likely to take over, or to be ignored."
        if norm > _LONG * self.usual_norm:
            said += (
                f" Its length of {norm:.3g}, where words have {self.usual_norm:.2g}, is no fault by itself: trained "
                "words are mostly long, and the text encoder evens out much of it; the direction decides."
            )
        return said

    @property
    def text(self) -> str:
        """The verdict, and a line for each vector."""
        lines = [self.verdict]
        if self.composition is not None:
            lines.append(
                f"composition {self.composition.score:.2f}: beside another noun it takes "
                f"{self.composition.takes:.2g} times the attention that its class noun takes there"
            )
        for number, each in self.numbered():
            nouns = ", ".join(f"{word} {weight:.2f}" for word, weight in each.anchors.items())
            words = ", ".join(f"{word} {cosine:.2f}" for word, cosine in each.nearest)
            where = f" in {each.encoder}" if each.encoder else ""
            lines.append(
                f"vector {number}{where}: cosine {each.cosine:.2f} with its anchors ({nouns}); length "
                f"{each.norm:.3g}, longer than {each.norm_percentile:.0f} % of the words; nearest words {words}; "
                f"farther from them than {each.distance_percentile:.0f} % of the words are from one another"
            )
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The words of a text encoder: their names, and their embeddings (V, D), float32, CPU."""

    names: Sequence[str]
    vectors: torch.Tensor


def inspect(
    vectors: torch.Tensor, anchors: Anchors, vocabulary: Vocabulary, superclass: int | None = None, encoder: str = ""
) -> Inspection:
    """Look at a word's vectors (k, D) in one text encoder.

    Parameters
    ----------
    superclass : int, optional
        Position of its class noun among the anchors.
    encoder : str
        What to call the text encoder, where there are several.

    Raises
    ------
    UserError
        When a vector is zero or not finite.
    """
    codes = anchor_codes(vectors, anchors, superclass)
    points = codes @ anchors.vectors
    unit, norms = F.normalize(vocabulary.vectors, dim=1), vocabulary.vectors.norm(dim=1)
    neighbours = _nearest_neighbours(unit)
    facts = []
    for vector, code, point in zip(vectors.float(), codes, points, strict=True):
        best = (unit @ F.normalize(vector, dim=0)).topk(min(_NEAREST, len(unit)))
        nearest = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        active = anchors.weights(code)
        facts.append(
            VectorFacts(
                norm=float(vector.norm()),
                norm_percentile=_percent(norms < vector.norm()),
                nearest=tuple((str(vocabulary.names[int(index)]), float(cosine)) for index, cosine in nearest),
                distance_percentile=_percent(neighbours > best.values[0]),
                anchors=active,
                entropy=-sum(weight * math.log2(weight) for weight in active.values()),
                cosine=float(F.cosine_similarity(vector, point, dim=0)),
                usual_norm=float(norms.median()),
                encoder=encoder,
            )
        )
    return Inspection(tuple(facts))


def _nearest_neighbours(unit: torch.Tensor) -> torch.Tensor:
    """Cosine of sampled words with their nearest other word."""
    count = min(_SAMPLED, len(unit))
    rows = torch.randperm(len(unit), generator=torch.Generator().manual_seed(_SEED))[:count]
    cosines = unit[rows] @ unit.T
    cosines[torch.arange(count), rows] = -1.0
    return cosines.amax(1)


def _percent(true: torch.Tensor) -> float:
    return 100 * float(true.float().mean())
