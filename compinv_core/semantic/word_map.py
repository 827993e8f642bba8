"""A map of where a word stands: the vocabulary's density, the anchors by name, and the word (the idea of Fig. 1)."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F

from ..basics.line_chart import COLOURS, font
from .anchors import Anchors

SIDE = 768
_MARGIN, _DOT, _STAR = 48, 4, 9
_SAMPLED, _SEED = 6000, 0
_NAMED = 40
_GROUND, _INK, _CLOUD = "#FFFFFF", "#333333", (205, 213, 224)


def draw_word_map(vectors: torch.Tensor, anchors: Anchors, vocabulary: torch.Tensor, name: str) -> torch.Tensor:
    """Draw directions in the plane that keeps most of the anchors and the word; lengths do not count.

    Parameters
    ----------
    vectors : Tensor (k, D)
        Of the word.
    vocabulary : Tensor (V, D)
        Of which some thousands are drawn as a cloud.

    Returns
    -------
    Tensor (1, 768, 768, 3), float32 in [0, 1]
    """
    units = [F.normalize(each.float(), dim=1) for each in (vectors, anchors.vectors, _sampled(vocabulary))]
    middle = units[1].mean(0)
    # Of the word's plane one direction leads to the word itself, so that its distance shows.
    outward = F.normalize(units[0].mean(0) - middle, dim=0)
    rest = units[1] - middle
    rest = rest - (rest @ outward)[:, None] * outward
    _, _, axes = torch.linalg.svd(rest, full_matrices=False)
    plane = torch.stack([outward, axes[0]], 1)
    word, nouns, cloud = ((unit - middle) @ plane for unit in units)
    shown = torch.cat([word, nouns, cloud])
    low, high = shown.amin(0), shown.amax(0)
    scale = (SIDE - 2 * _MARGIN) / (high - low).clamp(min=1e-6)
    picture = Image.new("RGB", (SIDE, SIDE), _GROUND)
    draw = ImageDraw.Draw(picture)

    def at(point: torch.Tensor) -> tuple[float, float]:
        x, y = (_MARGIN + (point - low) * scale).tolist()
        return x, SIDE - y

    for point in cloud:
        x, y = at(point)
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=_CLOUD)
    for noun, point in zip(anchors.words, nouns, strict=True):
        x, y = at(point)
        draw.ellipse((x - _DOT, y - _DOT, x + _DOT, y + _DOT), fill=COLOURS[0])
        if len(anchors) <= _NAMED:
            draw.text((x + 6, y - 8), noun, fill=_INK, font=font(13))
    for point in word:
        x, y = at(point)
        draw.ellipse((x - _STAR, y - _STAR, x + _STAR, y + _STAR), fill=COLOURS[1])
    draw.text((x + 12, y - 10), name, fill=COLOURS[1], font=font(18))
    draw.text((_MARGIN, 12), "directions: vocabulary, anchors, and the word", fill=_INK, font=font(15))
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None]


def _sampled(vocabulary: torch.Tensor) -> torch.Tensor:
    rows = torch.randperm(len(vocabulary), generator=torch.Generator().manual_seed(_SEED))[:_SAMPLED]
    return vocabulary[rows]
