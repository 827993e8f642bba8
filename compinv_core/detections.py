"""What a detector found in a picture, the protocol of detectors, and their labels matched to nouns.

Boxes are ``(x0, y0, x1, y1)`` as fractions of the picture, origin top left. `bounding_boxes` has the host's own form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from .errors import UserError
from .layout import Box

_ARTICLES = ("a", "an", "the", "one")
_IRREGULAR = {
    "children": "child",
    "feet": "foot",
    "geese": "goose",
    "men": "man",
    "mice": "mouse",
    "people": "person",
    "teeth": "tooth",
    "women": "woman",
}
# How many labels an error message lists before it says how many more there are.
_SHOWN_LABELS = 8


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


def match_labels(nouns: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Say which of a detector's labels means which noun.

    Case, articles, plurals, and the difference between hyphen, underscore and space do not count. A noun that has no
    label of its own takes one that it ends with or that ends with it ("sports ball" and "ball"), provided that there is
    only one such label and no other noun wants it.

    Parameters
    ----------
    nouns : sequence of str
    labels : sequence of str

    Returns
    -------
    dict of str to str
        Noun to label, both as given; nouns without a label are left out, so it may be empty.
    """
    matched = _matches(nouns, labels, same_noun)
    taken = set(matched.values())
    rest = [noun for noun in nouns if noun not in matched]
    compounds = _matches(rest, [label for label in labels if label not in taken], same_head)
    wanted = list(compounds.values())
    matched |= {noun: label for noun, label in compounds.items() if wanted.count(label) == 1}
    return {noun: matched[noun] for noun in nouns if noun in matched}


def same_noun(noun: str, label: str) -> bool:
    """Say whether two texts mean the same noun; case, articles, plurals, hyphens, underscores and spaces do not count.

    Parameters
    ----------
    noun, label : str

    Returns
    -------
    bool
    """
    return _same_forms(_words(noun), _words(label))


def same_head(noun: str, label: str) -> bool:
    """Say whether one of two texts ends with the other, compared as `same_noun` does ("sports ball" and "a ball").

    Parameters
    ----------
    noun, label : str

    Returns
    -------
    bool
        False where both have equally many words.
    """
    short, long = sorted((_words(noun), _words(label)), key=len)
    return 0 < len(short) < len(long) and _same_forms(short, long[-len(short) :])


def require_labels(nouns: Sequence[str], detector: Detector) -> dict[str, str]:
    """`match_labels` for a detector, which must know at least one of the nouns.

    Parameters
    ----------
    nouns : sequence of str
    detector : Detector

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
            f"The detector {detector.name} finds none of the nouns ({_some(nouns)}), only {_some(detector.labels)}; "
            "choose a vocabulary and a detector that have nouns in common."
        )
    return matched


def _matches(nouns: Sequence[str], labels: Sequence[str], same: Callable[[str, str], bool]) -> dict[str, str]:
    """Nouns that are the same as exactly one label."""
    found = {noun: [label for label in labels if same(noun, label)] for noun in nouns}
    return {noun: candidates[0] for noun, candidates in found.items() if len(candidates) == 1}


def _words(text: str) -> list[str]:
    words = re.sub(r"[-_\s]+", " ", text.casefold()).split()
    return words[1:] if len(words) > 1 and words[0] in _ARTICLES else words


def _forms(words: Sequence[str]) -> set[str]:
    """The noun without spaces, as written and with its last word in what may be its singular."""
    if not words:
        return set()
    *before, last = words
    singulars = {last, _IRREGULAR.get(last, last)}
    if last.endswith("s") and not last.endswith("ss"):
        singulars.add(last[:-1])
        if last.endswith("es"):
            singulars.add(last[:-2])
        if last.endswith("ies"):
            singulars.add(f"{last[:-3]}y")
        if last.endswith("ves"):
            singulars |= {f"{last[:-3]}f", f"{last[:-3]}fe"}
    return {"".join([*before, singular]) for singular in singulars if singular}


def _same_forms(a: Sequence[str], b: Sequence[str]) -> bool:
    # Not the intersection of their forms: what may be a singular of both need not be a word.
    return bool(a and b) and ("".join(a) in _forms(b) or "".join(b) in _forms(a))


def _some(words: Sequence[str]) -> str:
    shown = ", ".join(words[:_SHOWN_LABELS])
    more = len(words) - _SHOWN_LABELS
    return f"{shown} and {more} more" if more > 0 else shown
