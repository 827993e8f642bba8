"""Judge pictures of an own thing composed with another noun, or alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import mean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compinv_core.measures.likeness import identity

from ..networks.judge import NOUN_NAMES, THRESHOLD, judge_pictures, load_judge
from ..world.instances import INSTANCES, Instance, photos
from .workbench import Box


@dataclass(frozen=True)
class Sight:
    """What the judge sees in one picture.

    Attributes
    ----------
    counts
        How often each noun is there, of those that are.
    boxes
        Where each of them is most certainly, ``x0, y0, x1, y1`` in [0, 1].
    """

    counts: dict[str, int]
    boxes: dict[str, Box]


def seen(pictures: Tensor) -> list[Sight]:
    """What is in pictures (N, 3, SIDE, SIDE) in [0, 1]."""
    sights = []
    for verdict in judge_pictures(load_judge(), pictures):
        for counts, boxes in zip(verdict.counts().tolist(), verdict.best_boxes().tolist(), strict=True):
            there = [k for k, count in enumerate(counts) if count]
            sights.append(
                Sight(
                    {NOUN_NAMES[k]: counts[k] for k in there},
                    {NOUN_NAMES[k]: (boxes[k][0], boxes[k][1], boxes[k][2], boxes[k][3]) for k in there},
                )
            )
    return sights


@torch.no_grad()
def judged_rows(pictures: Tensor, own: str, other: str | None) -> list[dict[str, Any]]:
    """Everything that the judge says of pictures of an own thing beside another noun.

    Parameters
    ----------
    pictures
        (N, 3, SIDE, SIDE) in [0, 1].
    own
        Name of the own thing.
    other
        The noun beside it; None for the thing alone.

    Returns
    -------
    list of dict
        A row for each picture, with numbers alone.

        - ``own``, ``composed``, ``all_there``, ``duplicates``: 1 where the own thing's class is found, the other noun
          is, both are, and one of them is there twice;
        - ``identified``: 1 where the class is found and more like this own thing than like any other; ``identity``, how
          sure that is, in [0, 1];
        - ``background``: likeness of what is behind the objects to the photos' wallpaper, a cosine;
        - ``text_alignment``: share of what was asked for that is there;
        - ``image_alignment``: mean cosine of the whole picture with the photos; ``object_alignment``: the same of the
          thing alone, both masked, None where its class was not found.
    """
    judge, instance = load_judge(), INSTANCES[own]
    asked = [noun for noun in (instance.noun, other) if noun]
    index = [NOUN_NAMES.index(noun) for noun in asked]
    reference, place = _photo_features(instance), list(INSTANCES).index(own)
    known = [_photo_features(each).identities for each in INSTANCES.values()]
    rows = []
    for batch, verdict in zip(pictures.split(64), judge_pictures(judge, pictures), strict=True):
        presence, counts = verdict.presence()[:, index] > THRESHOLD, verdict.counts()[:, index]
        masks = verdict.masks[:, index[0]].sigmoid()
        alike = (judge.object_features(verdict, masks) @ reference.objects.T).mean(1)
        whole = (judge.picture_features(verdict) @ reference.pictures.T).mean(1)
        outlines = verdict.masks.sigmoid().amax(1)
        behind = (judge.background_features(verdict, outlines) @ reference.backgrounds.T).mean(1)
        sure = identity(judge.identify(batch, verdict.best_boxes()[:, index[0]]), known)
        for i, there in enumerate(presence.tolist()):
            rows.append(
                {
                    "own": int(there[0]),
                    "composed": int(len(there) > 1 and there[1]),
                    "all_there": int(all(there)),
                    "duplicates": int(counts[i].max() > 1),
                    "identified": int(there[0] and int(sure[i].argmax()) == place),
                    "identity": float(sure[i, place]),
                    "background": float(behind[i]),
                    "text_alignment": mean(there),
                    "image_alignment": float(whole[i]),
                    "object_alignment": float(alike[i]) if there[0] else None,
                }
            )
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over pictures of one kind; ``found`` says over how many ``object_alignment`` is."""
    means: dict[str, Any] = {"n": len(rows), "found": sum(row["own"] for row in rows)}
    for name in rows[0]:
        values = [row[name] for row in rows if row[name] is not None]
        means[name] = mean(values) if values else None
    return means


class _PhotoFeatures(NamedTuple):
    """The judge's features of an own thing's photos: whole, of the thing, of what is behind it, and of its identity."""

    pictures: Tensor
    objects: Tensor
    backgrounds: Tensor
    identities: Tensor


@cache
@torch.no_grad()
def _photo_features(instance: Instance) -> _PhotoFeatures:
    judge = load_judge()
    pictures, masks = photos(instance)
    shown = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(255)
    verdict = judge(shown)
    cells = verdict.masks.shape[-1]
    small = torch.from_numpy(masks).unflatten(2, (cells, -1)).unflatten(1, (cells, -1)).mean((2, 4))
    boxes = verdict.best_boxes()[:, NOUN_NAMES.index(instance.noun)]
    return _PhotoFeatures(
        judge.picture_features(verdict),
        judge.object_features(verdict, small),
        judge.background_features(verdict, small),
        judge.identify(shown, boxes),
    )
