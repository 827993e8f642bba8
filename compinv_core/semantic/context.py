"""Keeping the words around the learned one as they are: the context embedding loss of CoRe (Wu et al. 2024, Eq. 3).

A word that was learned too well changes what the text encoder makes of its neighbours. In sentences that need no
picture the neighbours are held to what they are when the class noun stands in the word's place. CoRe's loss on
attention maps and its rescaling of the norm are not here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Sentences around a learned word, and around its class noun.

    Attributes
    ----------
    encode : callable
        (index of a sentence, vectors (k, D)) -> what the text encoder gives (1, T, D), differentiable in the vectors.
    reference : callable
        (index of a sentence) -> the same of the sentence with the class noun in the word's place, (1, T, D).
    places : sequence of (sequence of int, sequence of int)
        For each sentence the positions of the tokens that are neither the word nor its class noun, with the word, and
        those of the same tokens in the reference.
    """

    encode: Callable[[int, torch.Tensor], torch.Tensor]
    reference: Callable[[int], torch.Tensor]
    places: Sequence[tuple[Sequence[int], Sequence[int]]]

    def draw(self, generator: torch.Generator) -> int:
        """Return the index of one of the sentences, all as likely."""
        return int(torch.randint(len(self.places), (1,), generator=generator))

    def loss(self, index: int, vectors: torch.Tensor) -> torch.Tensor:
        """Return the context loss () of one sentence for vectors (k, D)."""
        here, there = self.places[index]
        with torch.no_grad():
            reference = self.reference(index)[0, list(there)]
        return context_loss(self.encode(index, vectors)[0, list(here)], reference).to(vectors.device)


def context_loss(outputs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Mean cosine distance, ``1 - cos``, of the outputs (n, D) of n tokens from those of the reference; 0 to 2, ()."""
    return 1 - F.cosine_similarity(outputs, reference, dim=1).mean()
