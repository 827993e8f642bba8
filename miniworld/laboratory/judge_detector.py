"""The miniature world's judge as a detector, for layouts measured without a trained detector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compinv_core.detectors.detections import Detection, sorted_detections

from ..networks.judge import NOUN_NAMES, THRESHOLD, judge_pictures, load_judge
from ..world.placing import SIDE


@dataclass(frozen=True)
class JudgeDetector:
    """Finds at most one object of each noun, where the judge is most certain of it; a `detections.Detector`."""

    threshold: float = THRESHOLD
    name: str = "judge of the miniature world"
    labels: tuple[str, ...] = NOUN_NAMES

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[tuple[Detection, ...]]:
        pictures = images.movedim(-1, 1).float()
        if pictures.shape[-2:] != (SIDE, SIDE):
            raise ValueError(f"The judge looks at pictures of {SIDE}×{SIDE} pixels, not {tuple(pictures.shape[-2:])}.")
        found = []
        for verdict in judge_pictures(load_judge(), pictures):
            for scores, boxes in zip(verdict.presence().tolist(), verdict.best_boxes().tolist(), strict=True):
                rows = zip(self.labels, scores, boxes, strict=True)
                found.append(sorted_detections(row for row in rows if row[1] > self.threshold))
        return found
