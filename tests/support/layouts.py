"""What the tests of layouts share: a detector that any picture satisfies, and settings of a collection of seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from . import locations  # noqa: F401 (puts the repository on the path)

from compinv_core.detectors.detections import Detection, sorted_detections  # isort: skip

NOUNS = ("cat", "dog", "boat", "tree")


@dataclass(frozen=True)
class PixelDetector:
    """Reads a box for every label off a few pixels, and misses one of four labels, another one in every picture."""

    name: str = "pixels"
    labels: tuple[str, ...] = NOUNS
    threshold: float = 0.5

    def detect(self, images: Tensor) -> list[tuple[Detection, ...]]:
        return [sorted_detections(self._found(image)) for image in images]

    def _found(self, image: Tensor) -> list[tuple[str, float, tuple[float, float, float, float]]]:
        total = int((image * 255).round().long().sum())
        rows = []
        for index, label in enumerate(self.labels):
            score, x, y = image[3 + 5 * index, 7 + 3 * index].tolist()
            if (total + index) % 4:
                rows.append((label, 0.5 + score / 2, (x * 0.6, y * 0.6, x * 0.6 + 0.3, y * 0.6 + 0.4)))
        return rows


def collection(**settings: Any) -> dict[str, Any]:
    """Settings of `CollectionConfig` for the tiny model."""
    return {
        "pairs": 4, "images_per_pair": 4, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal",
        "width": 64, "height": 64, "seed": 0, "batch_size": 2, **settings,
    }  # fmt: skip
