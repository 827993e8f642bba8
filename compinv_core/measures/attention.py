"""How much attention each phrase of a prompt has: a word that dominates takes many times that of its neighbour."""

from __future__ import annotations

import torch
from torch import Tensor

from ..recording.measures import mean_map
from ..recording.record import AttentionRecord


def attention_shares(record: AttentionRecord) -> Tensor:
    """Mean attention of each phrase over all recorded steps and places.

    Of the softmax over the prompt's tokens a phrase has the mean over its tokens, as in Eq. 9.

    Returns
    -------
    Tensor (B, P)
        In [0, 1].
    """
    return torch.stack([mean_map(frame.maps).mean((2, 3)) for frame in record.frames]).mean(0)


def dominance(shares: Tensor, own: int, other: int) -> Tensor:
    """How many times the attention of one phrase the other has, (B,); about 1 where two nouns share a picture."""
    return shares[:, own] / shares[:, other].clamp(min=torch.finfo(shares.dtype).tiny)
