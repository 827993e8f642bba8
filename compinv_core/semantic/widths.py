"""One vector for several text encoders: their embeddings side by side, as the encoded prompt has them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

Widths = Mapping[str, int]
"""Width of each text encoder's part of a vector, by the key of its vectors in an embedding file (``clip_l``), in order.

Empty stands for one text encoder, whatever it is called.
"""


CLIP_L: Widths = {"clip_l": 768}
"""Of Stable Diffusion 1, whose embedding files hold one tensor without such a key."""


def parts_of(vectors: torch.Tensor, widths: Widths) -> list[torch.Tensor]:
    """Return each text encoder's part of vectors (..., D), as views."""
    return list(vectors.split(list(widths.values()), dim=-1)) if widths else [vectors]


def names_of(widths: Widths) -> list[str]:
    """Return what to call each part among others; one that stands alone has no name."""
    return list(widths) if len(widths) > 1 else [""]
