"""How a word shares a prompt's attention with other nouns, beside how its class noun shares it.

A word that dominates takes many times the attention of the noun next to it, where its class noun takes about as much.
That shows after a few layers of the diffusion model, so no picture has to be painted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Composition:
    """How evenly a word shares attention.

    Attributes
    ----------
    score : float
        1 where it shares as its class noun does, 0.5 where it takes twice or half as much, towards 0 where it
        dominates or is ignored.
    takes : float
        How many times what its class noun takes of its neighbour's attention; geometric mean over the neighbours.
    """

    score: float
    takes: float

    @classmethod
    def of(cls, word: torch.Tensor, noun: torch.Tensor) -> Composition:
        """Compare what two prompts look at, "word and a neighbour" and "noun and a neighbour".

        ``score = exp(-mean_n |ln(r_n / r'_n)|)``, with r the attention of the word over that of its neighbour n, and r'
        the class noun's over it.

        Parameters
        ----------
        word, noun : Tensor (N, 2)
            Attention of the first phrase and of the neighbour, for N neighbours.
        """
        apart = _log_ratio(word) - _log_ratio(noun)
        return cls(math.exp(-float(apart.abs().mean())), math.exp(float(apart.mean())))


def _log_ratio(attention: torch.Tensor) -> torch.Tensor:
    first, other = attention.double().clamp(min=torch.finfo(torch.float32).tiny).log().unbind(1)
    return first - other
