"""The independent judge of the miniature world: which nouns are in a picture, how often, where, and which own thing.

Two small convolutional networks trained on renders only; the generator never sees them. For every noun the finder gives
a centre heatmap, whose separate peaks are objects, and a mask, and at each cell a box and the object's look.
"Presence" is the highest centre score of a noun. "Alignment" is the cosine of standardised features, pooled over the
whole picture or over the mask of one object. The identifier looks at the crop of one object, and its features say which
of several things of the same noun it is.
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
from ..world.looks import COLOURS, MARKS, PATTERNS
from .checkpoint import WEIGHTS, load_small

NOUN_NAMES = tuple(NOUNS)
LOOKS = {
    "colour": len(COLOURS),
    "second_colour": len(COLOURS),
    "pattern": 1 + len(PATTERNS),
    "mark": 1 + len(MARKS),
}
CROP, IDENTITY = 64, 128
"""Side of the crop of one object, and the number of features of its identity."""
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
        self.identifier = nn.Sequential(
            nn.Conv2d(3, 32, 5, 2, padding=2), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, padding=1), Residual(64),
            nn.Conv2d(64, 128, 3, 2, padding=1), Residual(128), nn.GroupNorm(8, 128), nn.ReLU(),
        )  # fmt: skip
        self.identity = nn.Linear(128 * 16, IDENTITY)
        with torch.no_grad():
            self.cells.bias[: len(NOUN_NAMES)] = -3.0
            self.outline.bias.fill_(-3.0)
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
        return self._standardise(pooled(verdict.features, masks), 1)

    def background_features(self, verdict: Verdict, masks: Tensor) -> Tensor:
        """The same pooled over what is behind the objects; masks (B, 32, 32) in [0, 1] are those of all objects."""
        return self._standardise(pooled(verdict.features, 1 - masks), 0)

    def identify(self, pictures: Tensor, boxes: Tensor) -> Tensor:
        """Unit features (B, 128) of what is in one box (B, 4) of each picture (B, 3, H, W) in [0, 1]."""
        found = self.identifier(crops(pictures, boxes) - 0.5)
        return F.normalize(self.identity(F.adaptive_avg_pool2d(found, 4).flatten(1)).float(), dim=1)

    def _standardise(self, pooled: Tensor, kind: int) -> Tensor:
        return F.normalize((pooled - self.feature_mean[kind]) / self.feature_std[kind], dim=1)


def pooled(features: Tensor, masks: Tensor) -> Tensor:
    """Means of features (B, F, 32, 32) over masks (B, 32, 32), (B, F)."""
    weight = masks[:, None] / masks.sum((1, 2)).clamp(min=1e-6).view(-1, 1, 1, 1)
    return (features * weight).sum((2, 3))


def crops(pictures: Tensor, boxes: Tensor, grow: float = 1.15) -> Tensor:
    """What is in one box ``x0, y0, x1, y1`` in [0, 1], a little larger, of each picture: (B, 3, 64, 64)."""
    corner, opposite = boxes.split(2, dim=1)
    theta = pictures.new_zeros(len(boxes), 2, 3)
    theta[:, :, 2] = corner + opposite - 1
    theta[:, 0, 0], theta[:, 1, 1] = ((opposite - corner) * grow).unbind(1)
    grid = F.affine_grid(theta, [len(boxes), 3, CROP, CROP], align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


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
