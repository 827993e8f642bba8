"""The independent judge of the miniature world: which nouns are in a picture, where, and how alike two things look.

A small convolutional network trained on renders only; the generator never sees it. For every noun it gives a centre
heatmap and a mask, and at each cell a box and the object's look (colour, second colour, pattern). "Presence" is the
highest centre score of a noun. "Alignment" is the cosine of standardised features, pooled over the whole picture or
over the mask of one object.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..world.backgrounds import BACKGROUNDS
from ..world.drawing import NOUNS
from ..world.scenes import COLOURS, PATTERNS
from .checkpoint import WEIGHTS, load_small

NOUN_NAMES = tuple(NOUNS)
LOOKS = {"colour": len(COLOURS), "second_colour": len(COLOURS), "pattern": 1 + len(PATTERNS)}
THRESHOLD = 0.5
"""A noun is present where its highest centre score exceeds this."""
PEAK = 5
"""Cells within which only the highest centre counts as an object."""


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


@dataclass(frozen=True)
class Verdict:
    """What the judge says of B pictures.

    Attributes
    ----------
    centres
        (B, 16, 16, 16) logits: noun, row, column.
    masks
        (B, 16, 32, 32) logits: noun, row, column.
    boxes
        (B, 4, 16, 16), ``x0, y0, x1, y1`` in [0, 1] at each cell.
    looks
        Logits (B, n, 16, 16) for each entry of ``LOOKS``.
    background
        (B, 10) logits.
    features
        (B, 192, 32, 32), what alignment pools.
    """

    centres: Tensor
    masks: Tensor
    boxes: Tensor
    looks: dict[str, Tensor]
    background: Tensor
    features: Tensor

    def presence(self) -> Tensor:
        """Probability that each noun is in each picture, (B, 16)."""
        return self.centres.flatten(2).amax(2).sigmoid()

    def counts(self) -> Tensor:
        """How often each noun is in each picture, (B, 16): separate peaks of its centre scores."""
        score = self.centres.sigmoid()
        peaks = (score == F.max_pool2d(score, PEAK, 1, PEAK // 2)) & (score > THRESHOLD)
        return peaks.flatten(2).sum(2)

    def best_boxes(self) -> Tensor:
        """The box at each noun's highest cell, (B, 16, 4)."""
        cells = self.centres.flatten(2).argmax(2)
        return self.boxes.flatten(2).transpose(1, 2).gather(1, cells[..., None].expand(-1, -1, 4))


class Judge(nn.Module):
    """Pictures (B, 3, 128, 128) in [0, 1] → :class:`Verdict`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 5, 2, padding=2), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, padding=1), Residual(64)
        )
        self.deep = nn.Sequential(
            nn.Conv2d(64, 128, 3, 2, padding=1), Residual(128), Residual(128), nn.GroupNorm(8, 128), nn.ReLU()
        )
        self.cells = nn.Conv2d(128, len(NOUN_NAMES) + 4 + sum(LOOKS.values()), 1)
        self.outline = nn.Conv2d(192, len(NOUN_NAMES), 3, padding=1)
        self.background = nn.Linear(192, len(BACKGROUNDS))
        nn.init.constant_(self.cells.bias[: len(NOUN_NAMES)].data, -3.0)
        nn.init.constant_(self.outline.bias.data, -3.0)
        self.register_buffer("feature_mean", torch.zeros(2, 192))
        self.register_buffer("feature_std", torch.ones(2, 192))

    def forward(self, pictures: Tensor) -> Verdict:
        shallow = self.stem(pictures - 0.5)
        deep = self.deep(shallow)
        features = torch.cat([F.relu(shallow), F.interpolate(deep, scale_factor=2, mode="nearest")], 1)
        centres, boxes, looks = self.cells(deep).split([len(NOUN_NAMES), 4, sum(LOOKS.values())], 1)
        named = dict(zip(LOOKS, looks.split(list(LOOKS.values()), 1), strict=True))
        return Verdict(
            centres, self.outline(features), boxes.sigmoid(), named, self.background(features.mean((2, 3))), features
        )

    def picture_features(self, verdict: Verdict) -> Tensor:
        """Standardised, normalised features of whole pictures, (B, 192)."""
        return self._standardise(verdict.features.mean((2, 3)), 0)

    def object_features(self, verdict: Verdict, masks: Tensor) -> Tensor:
        """The same pooled over one object each; masks (B, 32, 32) in [0, 1]."""
        weight = masks[:, None] / masks.sum((1, 2)).clamp(min=1e-6).view(-1, 1, 1, 1)
        return self._standardise((verdict.features * weight).sum((2, 3)), 1)

    def _standardise(self, pooled: Tensor, kind: int) -> Tensor:
        return F.normalize((pooled - self.feature_mean[kind]) / self.feature_std[kind], dim=1)


@cache
def load_judge(path: Path = WEIGHTS / "judge.safetensors") -> Judge:
    """The trained judge of the repository, ready to judge."""
    judge = Judge()
    weights, _ = load_small(path)
    judge.load_state_dict(weights)
    return judge.eval().requires_grad_(False)


@torch.no_grad()
def judge_pictures(judge: Judge, pictures: Tensor) -> list[Verdict]:
    """Verdicts on pictures (N, 3, 128, 128) in [0, 1], in batches of 64."""
    return [judge(batch) for batch in pictures.split(64)]
