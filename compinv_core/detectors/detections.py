"""What a detector found in a picture, the protocol of detectors, and their labels matched to nouns.

Boxes are ``(x0, y0, x1, y1)`` as fractions of the picture, origin top left. `bounding_boxes` has the host's own form.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ..basics.errors import UserError, listed
from ..boxes.layout import Box
from ..words.nouns import match_labels


@dataclass(frozen=True)
class Detection:
    """One object that was found.

    Parameters
    ----------
    label : str
        As the detector names it.
    score : float
        Confidence, in [0, 1].
    box : (x0, y0, x1, y1)
        Fractions of the picture, in [0, 1].
    """

    label: str
    score: float
    box: Box


class Detector(Protocol):
    """Finds objects in pictures.

    Attributes
    ----------
    name : str
        Kind and weights, for reports: numbers of different detectors are never mixed.
    labels : tuple of str
        Everything that it can find, each once.
    threshold : float
        Least score of a detection, in [0, 1].
    """

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def threshold(self) -> float: ...

    def detect(self, images: Tensor) -> list[tuple[Detection, ...]]:
        """Find objects.

        Parameters
        ----------
        images : Tensor (B, H, W, 3), float32
            In [0, 1], as the host's IMAGE.

        Returns
        -------
        list of tuple of Detection, length B
            Per picture, the highest score first.
        """
        ...


def sorted_detections(found: Iterable[tuple[str, float, Sequence[float]]]) -> tuple[Detection, ...]:
    """Clip boxes to the picture, drop those without an area, and sort by score.

    Parameters
    ----------
    found : iterable of (label, score, (x0, y0, x1, y1))
        Fractions of the picture; a box may reach a little outside.

    Returns
    -------
    tuple of Detection
        The highest score first.
    """
    detections = []
    for label, score, corners in found:
        if not (math.isfinite(score) and all(math.isfinite(value) for value in corners)):
            continue
        x0, y0, x1, y1 = (min(max(float(value), 0.0), 1.0) for value in corners)
        if x0 < x1 and y0 < y1:
            detections.append(Detection(label, float(score), (x0, y0, x1, y1)))
    return tuple(sorted(detections, key=lambda detection: -detection.score))


def require_labels(nouns: Sequence[str], detector: Detector) -> dict[str, str]:
    """`match_labels` for a detector, which must know at least one of the nouns.

    Returns
    -------
    dict of str to str

    Raises
    ------
    UserError
        When the detector knows none of the nouns.
    """
    matched = match_labels(nouns, detector.labels)
    if not matched:
        raise UserError(
            f"The detector {detector.name} finds none of the nouns ({listed(nouns)}), only "
            f"{listed(detector.labels)}; "
            "choose a vocabulary and a detector that have nouns in common."
        )
    return matched
