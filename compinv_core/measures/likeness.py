"""How alike pictures, photos and a prompt are, in the features of a network that looks at them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

TEXT_SCALE = 2.5
"""Hessel et al. 2021 (CLIPScore) stretch cosines by it, and so do the paper's tables."""
SHARPNESS = 0.05
"""Difference of two likenesses that makes one thing e times as probable as another in `identity`."""


def cosines(features: Tensor, references: Tensor) -> Tensor:
    """Cosine of each of N features with each of M references.

    Parameters
    ----------
    features, references : Tensor (N, D), (M, D)

    Returns
    -------
    Tensor (N, M)
        In [-1, 1]; 0 where either is all zeros.
    """
    return (F.normalize(features.float(), dim=-1) @ F.normalize(references.float(), dim=-1).T).clamp(-1, 1)


def text_alignment(cosine: Tensor) -> Tensor:
    """The paper's text alignment of a cosine between picture and prompt: ``2.5 · max(cos, 0)``."""
    return TEXT_SCALE * cosine.clamp(min=0)


def image_alignment(features: Tensor, references: Tensor) -> Tensor:
    """Mean cosine of each picture with all references, (N,); its mean is over all pairs, as in the paper's table."""
    return cosines(features, references).mean(1)


def identity(features: Tensor, things: Sequence[Tensor]) -> Tensor:
    """Which of several things each picture shows, and how sure that is.

    Parameters
    ----------
    features : Tensor (N, D)
    things : sequence of K Tensor (M_k, D)
        Features of photos of each thing; their numbers may differ.

    Returns
    -------
    Tensor (N, K)
        Sums to 1 over the things; the largest is the one that it is most like.
    """
    alike = torch.stack([image_alignment(features, photos) for photos in things], 1)
    return (alike / SHARPNESS).softmax(1)
