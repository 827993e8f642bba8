"""Which of the things that a prompt asks for are in a picture, and how often, by a detector's findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..detectors.detections import Detection


@dataclass(frozen=True)
class Composition:
    """The things of one picture.

    Attributes
    ----------
    counts : mapping of str to int
        How often each wanted thing was found.
    scores : mapping of str to float
        The detector's highest score of each, 0 where it was not found.
    """

    counts: Mapping[str, int]
    scores: Mapping[str, float]

    @property
    def all_there(self) -> bool:
        """Whether every wanted thing was found."""
        return all(self.counts.values())

    @property
    def share(self) -> float:
        """Share of the wanted things that were found."""
        return sum(count > 0 for count in self.counts.values()) / len(self.counts)

    @property
    def duplicates(self) -> int:
        """How many findings there are beyond one of each."""
        return sum(max(count - 1, 0) for count in self.counts.values())


def composition(detections: Sequence[Detection], labels: Mapping[str, str]) -> Composition:
    """Count the wanted things among a picture's detections.

    Parameters
    ----------
    detections : sequence of Detection
    labels : mapping of str to str
        Wanted thing to the detector's label for it, as `detectors.detections.require_labels` matches them.
    """
    found = {thing: [each.score for each in detections if each.label == label] for thing, label in labels.items()}
    counts = {thing: len(scores) for thing, scores in found.items()}
    return Composition(counts, {thing: max(scores, default=0.0) for thing, scores in found.items()})
