"""Numbers of a recorded sampling run: how alike the phrases' attention is, and how much of it is in the boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch

from ..basics.errors import UserError, listed
from ..basics.report import Report
from ..boxes.layout import Layout
from ..boxes.places import Place, bounding_box, place_masks
from ..spatial.attention import BlockMaps
from ..spatial.guidance import in_box_mass
from ..words.phrases import same_text, same_words
from .record import AttentionFrame, AttentionRecord

MEAN_OF_STEPS = -1
"""Stands for the mean over all recorded steps where a step is asked for."""


@dataclass(frozen=True, eq=False)
class AttentionCurves:
    """The measures over the recorded steps of a run (S steps, B images).

    Parameters
    ----------
    steps : tuple of int, length S
    guided_steps : tuple of int
        Those of them at which guidance changed the latents.
    pairs : tuple of (int, int), length Q
        Numbers of the two phrases of each pair; empty for a single phrase.
    boxed : tuple of int, length K
        Numbers of the phrases that have a box.
    similarity, similarity_unguided : Tensor (S, B, Q)
        `attention_similarity` of each pair; unguided where guidance changed the latents of the step, else NaN.
    mass, mass_unguided : Tensor (S, B, K)
        `box_shares` of each boxed phrase; unguided as above.
    logit, logit_unguided : Tensor (S, B, P)
        How similar the latents' queries are to each phrase's keys, in units of the attention's logarithm; see
        `spatial.attention.BlockMaps`. NaN in records of earlier versions; unguided as above.
    share, share_unguided : Tensor (S, B, P)
        The part of the attention that each phrase has; likewise.
    """

    steps: tuple[int, ...]
    guided_steps: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    boxed: tuple[int, ...]
    similarity: torch.Tensor
    similarity_unguided: torch.Tensor
    mass: torch.Tensor
    mass_unguided: torch.Tensor
    logit: torch.Tensor
    logit_unguided: torch.Tensor
    share: torch.Tensor
    share_unguided: torch.Tensor


def mean_map(maps: Sequence[BlockMaps]) -> torch.Tensor:
    """Bring the maps of all resolutions to the finest one and average them, weighted by their numbers of blocks.

    Parameters
    ----------
    maps : sequence of BlockMaps
        At least one.

    Returns
    -------
    Tensor (B, P, H, W), float32
        H, W of the finest maps; every cell of a coarser map is repeated.
    """
    size = max((each.values.shape[-2:] for each in maps), key=lambda shape: shape.numel())
    resized = [torch.nn.functional.interpolate(each.values, size, mode="nearest-exact") * each.blocks for each in maps]
    return torch.stack(resized).sum(0) / sum(each.blocks for each in maps)


def attention_similarity(attention: torch.Tensor) -> torch.Tensor:
    """Cosine between the attention maps of every two phrases: whether they look at the same places.

    With the relative attention ``p_i = A_i / Σ A_i`` of phrase i, the share of its attention that each cell has, the
    similarity of i and j is ``s_ij = ⟨p_i, p_j⟩ / (‖p_i‖ ‖p_j‖)``. It is 0 where no cell attends to both phrases and 1
    where both attend everywhere in the same proportion, whatever the two totals are.

    Parameters
    ----------
    attention : Tensor (B, P, H, W)
        Non-negative.

    Returns
    -------
    Tensor (B, P, P)
        In [0, 1], symmetric; 0 for a map of zeros.
    """
    unit = torch.nn.functional.normalize(attention.flatten(2), dim=-1)
    return (unit @ unit.transpose(1, 2)).clamp(0, 1)


def box_shares(maps: Sequence[BlockMaps], boxes: Sequence[Place]) -> torch.Tensor:
    """Share of each phrase's attention inside its box, mean over resolutions weighted by their numbers of blocks.

    Averaged over the phrases this is 1 − L_loc, the linear loss of Eq. 9 as `guidance.layout_loss` takes it.

    Parameters
    ----------
    maps : sequence of BlockMaps
        `values` (B, K, h, w).
    boxes : sequence of Place, length K

    Returns
    -------
    Tensor (B, K)
        In [0, 1].
    """
    shares = [in_box_mass(each.values, place_masks(boxes, *each.values.shape[-2:])) * each.blocks for each in maps]
    return torch.stack(shares).sum(0) / sum(each.blocks for each in maps)


def attention_curves(record: AttentionRecord, boxes: Sequence[Place | None]) -> AttentionCurves:
    """Measure every recorded step, before and after guidance.

    Parameters
    ----------
    record : AttentionRecord
        With at least one frame.
    boxes : sequence of boxes or None, length P
        See `boxes_for`.
    """
    pairs = tuple(combinations(range(len(record.phrases)), 2))
    boxed = tuple(index for index, box in enumerate(boxes) if box is not None)
    placed = [box for box in boxes if box is not None]

    def similarity(maps: Sequence[BlockMaps] | None) -> torch.Tensor:
        if maps is None or not pairs:
            return torch.full((record.images, len(pairs)), torch.nan)
        matrix = attention_similarity(mean_map(maps))
        return torch.stack([matrix[:, i, j] for i, j in pairs], dim=1)

    def mass(maps: Sequence[BlockMaps] | None) -> torch.Tensor:
        if maps is None or not boxed:
            return torch.full((record.images, len(boxed)), torch.nan)
        return box_shares([BlockMaps(each.values[:, list(boxed)], each.blocks) for each in maps], placed)

    def number(maps: Sequence[BlockMaps] | None, name: str) -> torch.Tensor:
        known = [(getattr(each, name), each.blocks) for each in maps or ()]
        if not known or any(values is None for values, _ in known):
            return torch.full((record.images, len(record.phrases)), torch.nan)
        return torch.stack([values * blocks for values, blocks in known]).sum(0) / sum(blocks for _, blocks in known)

    frames = record.frames
    return AttentionCurves(
        tuple(frame.step for frame in frames),
        tuple(frame.step for frame in frames if frame.unguided is not None),
        pairs,
        boxed,
        torch.stack([similarity(frame.maps) for frame in frames]),
        torch.stack([similarity(frame.unguided) for frame in frames]),
        torch.stack([mass(frame.maps) for frame in frames]),
        torch.stack([mass(frame.unguided) for frame in frames]),
        torch.stack([number(frame.maps, "logit") for frame in frames]),
        torch.stack([number(frame.unguided, "logit") for frame in frames]),
        torch.stack([number(frame.maps, "mass") for frame in frames]),
        torch.stack([number(frame.unguided, "mass") for frame in frames]),
    )


def boxes_for(record: AttentionRecord, layout: Layout | None = None) -> tuple[Place | None, ...]:
    """Give every recorded phrase its box.

    Parameters
    ----------
    layout : Layout, optional
        Takes the place of the boxes that the sampling was guided by; its phrases are those with the same text, else
        those with the same words.

    Returns
    -------
    tuple of Place or None, length P

    Raises
    ------
    UserError
        When the layout has none of the phrases.
    """
    if layout is None:
        return record.boxes
    given = list(zip(layout.phrases, layout.places, strict=True))

    def box_of(phrase: str) -> Place | None:
        found = (box for same in (same_text, same_words) for other, box in given if same(phrase, other))
        return next(found, None)

    boxes = tuple(box_of(phrase) for phrase in record.phrases)
    if len(layout) and all(box is None for box in boxes):
        raise UserError(
            f"Show Attention: `layout` has boxes for {listed(layout.phrases)}, but {listed(record.phrases)} was "
            "recorded; write the phrases of Record Attention and of the layout the same way."
        )
    return boxes


def frames_at(record: AttentionRecord, step: int) -> tuple[AttentionFrame, ...]:
    """Return the frames that a step stands for.

    Parameters
    ----------
    record : AttentionRecord
        With at least one frame.
    step : int
        Counted from 0; -1 stands for all.

    Returns
    -------
    tuple of AttentionFrame
        At least one.

    Raises
    ------
    UserError
        When the run has no such step, or nothing was recorded at it.
    """
    if step == MEAN_OF_STEPS:
        return record.frames
    if not 0 <= step < record.steps:
        raise UserError(
            f"Show Attention: `step` is {step}, but the sampling had {record.steps} steps; choose 0 to "
            f"{record.steps - 1}, or -1 for the mean of all."
        )
    found = tuple(frame for frame in record.frames if frame.step == step)
    if not found:
        known = ", ".join(str(frame.step) for frame in record.frames)
        raise UserError(
            f"Show Attention: nothing was recorded at step {step}, because the prompt was not in use there or the "
            f"sampler makes steps of its own; choose one of {known}, or -1 for their mean."
        )
    return found


def attention_report(record: AttentionRecord, curves: AttentionCurves, boxes: Sequence[Place | None]) -> Report:
    """Put the measures of a run into a report.

    Parameters
    ----------
    boxes : sequence of boxes or None, length P

    Returns
    -------
    Report
        One row per image; measures that do not exist (one phrase, no box, an unguided step) are None.
    """
    names = [" / ".join(record.phrases[i] for i in pair) for pair in curves.pairs]
    boxed = [record.phrases[i] for i in curves.boxed]
    tables = {
        "query-key similarity": (record.phrases, curves.logit),
        "query-key similarity before guidance": (record.phrases, curves.logit_unguided),
        "attention mass": (record.phrases, curves.share),
        "attention mass before guidance": (record.phrases, curves.share_unguided),
        "similarity": (names, curves.similarity),
        "similarity before guidance": (names, curves.similarity_unguided),
        "in-box mass": (boxed, curves.mass),
        "in-box mass before guidance": (boxed, curves.mass_unguided),
    }
    return Report(
        kind="attention",
        models={"model": record.model},
        settings={
            "phrases": record.phrases,
            "boxes": {
                phrase: bounding_box(box) for phrase, box in zip(record.phrases, boxes, strict=True) if box is not None
            },
            "sampler": record.sampler,
            "steps": record.steps,
            "recorded steps": curves.steps,
            "guided steps": curves.guided_steps,
            "sigmas": [frame.sigma for frame in record.frames],
        },
        prompts=(record.prompt,),
        seeds=() if record.seed is None else (record.seed,),
        summary={
            f"mean {title}": {name: _number(values[..., i].nanmean()) for i, name in enumerate(labels)}
            for title, (labels, values) in tables.items()
        },
        rows=[
            {"image": image}
            | {
                title: {name: [_number(value) for value in values[:, image, i]] for i, name in enumerate(labels)}
                for title, (labels, values) in tables.items()
            }
            for image in range(record.images)
        ],
    )


def _number(value: torch.Tensor) -> Any:
    number = float(value)
    return round(number, 6) if math.isfinite(number) else None
