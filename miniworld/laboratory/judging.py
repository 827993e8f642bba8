"""Judge pictures of an own thing composed with another noun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import mean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compinv_core.measures.likeness import identity

from ..networks.judge import NOUN_NAMES, THRESHOLD, Verdict, judge_pictures, load_judge
from ..world.instances import INSTANCES, Instance, photos
from ..world.scenes import USUAL_HEIGHT
from .workbench import Box


def drawn_boxes(own: str, other: str) -> tuple[Box, Box]:
    """Boxes as a person would draw them: side by side, each noun at its usual height, half the picture in size."""
    size = 0.46
    tops = [min(max(USUAL_HEIGHT[noun] - size / 2, 0.02), 0.98 - size) for noun in (own, other)]
    return (0.02, tops[0], 0.02 + size, tops[0] + size), (0.52, tops[1], 0.52 + size, tops[1] + size)


@dataclass(frozen=True)
class Judgement:
    """What the judge says of one picture of an own thing beside another noun.

    Attributes
    ----------
    own, other
        Probability that the own thing's class, and the other noun, are there; ``other`` is None for the thing alone.
    image_alignment
        Mean cosine of the whole picture with the photos.
    object_alignment
        Mean cosine of the own thing with the thing in the photos, both masked; None where its class was not found.
    """

    own: float
    other: float | None
    image_alignment: float
    object_alignment: float | None

    @property
    def both(self) -> bool:
        """Whether everything that was asked for is there."""
        return self.own > THRESHOLD and (self.other is None or self.other > THRESHOLD)

    @property
    def text_alignment(self) -> float:
        """Share of what was asked for that is there."""
        return mean(probability > THRESHOLD for probability in (self.own, self.other) if probability is not None)


class _PhotoFeatures(NamedTuple):
    """The judge's features of an own thing's photos: whole, of the thing, and of what is behind it, each (5, 192)."""

    pictures: Tensor
    objects: Tensor
    backgrounds: Tensor


@torch.no_grad()
def judge_pair(pictures: Tensor, instance: Instance, other: str | None) -> list[Judgement]:
    """Judge pictures (N, 3, SIDE, SIDE) in [0, 1] of an own thing composed with another noun, or alone (None)."""
    verdicts = judge_pictures(load_judge(), pictures)
    return [row for verdict in verdicts for row in _judgements(verdict, instance, other)]


def _judgements(verdict: Verdict, instance: Instance, other: str | None) -> list[Judgement]:
    judge, reference, own_index = load_judge(), _photo_features(instance), NOUN_NAMES.index(instance.noun)
    presence = verdict.presence()
    whole = (judge.picture_features(verdict) @ reference.pictures.T).mean(1)
    things = judge.object_features(verdict, verdict.masks[:, own_index].sigmoid())
    alike = (things @ reference.objects.T).mean(1)
    rows = []
    for i in range(len(presence)):
        own = float(presence[i, own_index])
        beside = float(presence[i, NOUN_NAMES.index(other)]) if other else None
        rows.append(Judgement(own, beside, float(whole[i]), float(alike[i]) if own > THRESHOLD else None))
    return rows


@torch.no_grad()
def judged_rows(pictures: Tensor, own: str, other: str) -> list[dict[str, Any]]:
    """Everything that the judge says of pictures (N, 3, SIDE, SIDE) in [0, 1] of an own thing beside another noun.

    Beside what `Judgement` has: ``duplicates`` (one of the two is there twice), ``identified`` (found, and more like
    this own thing than like any other) and how sure that is, and ``background``, the likeness of what is behind the
    objects to the photos' wallpaper.
    """
    judge, instance = load_judge(), INSTANCES[own]
    references = [_photo_features(each).objects for each in INSTANCES.values()]
    place, index = list(INSTANCES).index(own), [NOUN_NAMES.index(noun) for noun in (instance.noun, other)]
    wallpaper = _photo_features(instance).backgrounds
    rows = []
    for verdict in judge_pictures(judge, pictures):
        sure = identity(judge.object_features(verdict, verdict.masks[:, index[0]].sigmoid()), references)
        behind = judge.object_features(verdict, 1 - verdict.masks.sigmoid().amax(1)) @ wallpaper.T
        counted = verdict.counts()[:, index].tolist()
        for i, (row, counts) in enumerate(zip(_judgements(verdict, instance, other), counted, strict=True)):
            found = row.own > THRESHOLD
            rows.append(
                {
                    "own": int(found),
                    "composed": int(row.other is not None and row.other > THRESHOLD),
                    "all_there": int(row.both),
                    "duplicates": int(max(counts) > 1),
                    "identified": int(found and int(sure[i].argmax()) == place),
                    "identity": float(sure[i, place]),
                    "background": float(behind[i].mean()),
                    "text_alignment": row.text_alignment,
                    "image_alignment": row.image_alignment,
                    "object_alignment": row.object_alignment,
                }
            )
    return rows


def judge_two(pictures: Tensor, one: Instance, two: Instance) -> list[Judgement]:
    """Judge pictures of two own things: alignments are means over the two, that of objects over those found."""
    rows = []
    for a, b in zip(judge_pair(pictures, one, two.noun), judge_pair(pictures, two, one.noun), strict=True):
        alike = [row.object_alignment for row in (a, b) if row.object_alignment is not None]
        whole = mean((a.image_alignment, b.image_alignment))
        rows.append(Judgement(a.own, a.other, whole, mean(alike) if alike else None))
    return rows


@cache
@torch.no_grad()
def _photo_features(instance: Instance) -> _PhotoFeatures:
    judge = load_judge()
    pictures, masks = photos(instance)
    verdict = judge(torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(255))
    cells = verdict.masks.shape[-1]
    small = torch.from_numpy(masks).unflatten(2, (cells, -1)).unflatten(1, (cells, -1)).mean((2, 4))
    return _PhotoFeatures(
        judge.picture_features(verdict),
        judge.object_features(verdict, small),
        judge.object_features(verdict, 1 - small),
    )


def summary(rows: Sequence[Judgement]) -> dict[str, Any]:
    """Shares and means over pictures of one kind, all with another noun or all without.

    ``text_alignment`` is the judged share of the prompt's nouns; ``object_alignment`` is over the ``found`` pictures in
    which the own thing's class is present, None where there is none.
    """
    found = [row.object_alignment for row in rows if row.object_alignment is not None]
    own = mean(row.own > THRESHOLD for row in rows)
    beside = [row.other > THRESHOLD for row in rows if row.other is not None]
    other = mean(beside) if beside else None
    return {
        "n": len(rows),
        "other": other,
        "own": own,
        "both": mean(row.both for row in rows),
        "text_alignment": mean(row.text_alignment for row in rows),
        "image_alignment": mean(row.image_alignment for row in rows),
        "object_alignment": mean(found) if found else None,
        "found": len(found),
    }
