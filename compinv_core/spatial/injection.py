"""Guidance by injection: a bias on the logits of cross-attention, for each phrase's tokens, in one ordinary evaluation.

``softmax(q·k/√d + s · w(σ) · r · (2M_i − 1))`` for the tokens of phrase i: s the strength, w(σ) falling from 1 with the
noise, r the range of the logits of the head, M_i the phrase's region. All other tokens keep their logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .attention import split_heads

_QUERIES = 32
# σ₁, where the usual schedule of Stable Diffusion begins; one that reaches zero signal begins far above, with a picture
# that is as much noise.
_FULL_NOISE = 14.6


def noise_weight(sigma: float) -> float:
    """w(σ) = ln(1 + σ) / ln(1 + σ₁): 1 at full noise and above, 0 without any."""
    return min(1.0, math.log1p(sigma) / math.log1p(_FULL_NOISE))


def logit_ranges(query: torch.Tensor, key: torch.Tensor, heads: int) -> torch.Tensor:
    """Range of the logits ``q·k/√d`` over the tokens, mean over queries evenly chosen from all.

    Parameters
    ----------
    query : Tensor (B, N, heads * d)
    key : Tensor (B, T, heads * d)

    Returns
    -------
    Tensor (B, heads, 1, 1), of the query's type
    """
    some = query[:, :: max(1, query.shape[1] // _QUERIES)]
    # In half precision the products of some families' blocks are beyond the largest number.
    some, key = (split_heads(each, heads).float() for each in (some, key))
    logits = some @ key.transpose(-1, -2) * key.shape[-1] ** -0.5
    return (logits.amax(-1) - logits.amin(-1)).mean(-1)[..., None, None].to(query.dtype)


def region_signs(spans: Sequence[Sequence[int]], masks: torch.Tensor, tokens: int) -> torch.Tensor:
    """Sign of the bias: 1 for a phrase's tokens inside its region, −1 outside, 0 for all other tokens.

    Parameters
    ----------
    spans : sequence of sequences of int, length P
        Positions of each phrase's tokens.
    masks : Tensor (P, h, w)
        In [0, 1]; a soft mask's edge lies between.
    tokens : int
        Of the encoded prompt.

    Returns
    -------
    Tensor (h * w, tokens)
    """
    signs = masks.new_zeros(masks[0].numel(), tokens)
    for span, mask in zip(spans, masks, strict=True):
        signs[:, list(span)] = (2 * mask - 1).flatten()[:, None]
    return signs
