"""Pictures of recorded attention: heatmaps over the image (the paper's Fig. 9) and curves over the steps (Fig. 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..basics.errors import UserError
from ..basics.line_chart import COLOURS, Line, draw_chart, fit_text, font
from ..boxes.places import Place, bounding_box
from .measures import MEAN_OF_STEPS, AttentionCurves, frames_at, mean_map
from .record import AttentionFrame, AttentionRecord

_PIXELS_PER_CELL = 8
_LEAST_SIDE, _MOST_SIDE = 256, 768
_BAND, _TEXT_SIZE, _GAP = 26, 16, 6
_COLOUR_SHARE = 0.6
# From black through purple and orange to pale yellow, of steadily rising lightness.
_COLOUR_STOPS = torch.tensor(
    [[0, 0, 4], [51, 16, 104], [120, 28, 109], [186, 54, 85], [237, 105, 37], [251, 180, 26], [252, 255, 164]]
)


def _colourise(values: torch.Tensor) -> torch.Tensor:
    """Colours (..., 3) in [0, 1] of values (...) in [0, 1]."""
    stops = _COLOUR_STOPS / 255
    position = values.clamp(0, 1) * (len(stops) - 1)
    below = position.floor().long().clamp(max=len(stops) - 2)
    part = (position - below)[..., None]
    return stops[below] * (1 - part) + stops[below + 1] * part


PALETTE = bytes((_colourise(torch.linspace(0, 1, 256)) * 255).round().to(torch.uint8).flatten().tolist())
"""The colours of 256 levels of attention, three bytes each."""


@dataclass(frozen=True, eq=False)
class HeatmapRow:
    """Maps that stand in one row of the picture.

    Parameters
    ----------
    maps : Tensor (B, P, H, W)
    """

    title: str
    maps: torch.Tensor


def heatmap_rows(record: AttentionRecord, step: int = MEAN_OF_STEPS) -> list[HeatmapRow]:
    """Choose what is shown for a step.

    Parameters
    ----------
    record : AttentionRecord
        With at least one frame.
    step : int
        Counted from 0; -1 for the mean over the steps.

    Returns
    -------
    list of HeatmapRow
        For a step that guidance changed: before and after guidance. For another step: that step. For -1: the mean over
        all recorded steps and, if any was guided, the means over the guided steps before and after guidance.

    Raises
    ------
    UserError
        See `measures.frames_at`.
    """
    frames = frames_at(record, step)
    guided = [frame for frame in frames if frame.unguided is not None]
    rows = []
    if step == MEAN_OF_STEPS or not guided:
        rows.append(HeatmapRow(_named("", frames), _mean_over(frames)))
    if guided:
        rows.append(HeatmapRow(_named("before guidance, ", guided), _mean_over(guided, before=True)))
        rows.append(HeatmapRow(_named("after guidance, ", guided), _mean_over(guided)))
    return rows


def draw_heatmaps(
    record: AttentionRecord,
    boxes: Sequence[Place | None],
    step: int = MEAN_OF_STEPS,
    image: torch.Tensor | None = None,
) -> torch.Tensor:
    """Draw one picture per image of the batch: a column per phrase, a row per moment, boxes where there are any.

    Within a column, the colours run from the least to the greatest value of all its rows, so that before and after
    guidance can be compared.

    Parameters
    ----------
    record : AttentionRecord
        With at least one frame.
    boxes : sequence of Place or None, length P
    step : int
        See `heatmap_rows`.
    image : Tensor (B, H, W, 3), float, in [0, 1], optional
        The finished pictures, laid under the heatmaps in grey.

    Returns
    -------
    Tensor (B, height, width, 3), float32, in [0, 1]

    Raises
    ------
    UserError
        When the step does not exist, or there are not as many images as were sampled.
    """
    rows = heatmap_rows(record, step)
    if image is not None and image.shape[0] != record.images:
        raise UserError(
            f"Show Attention: `image` has {image.shape[0]} pictures, but {record.images} were sampled; connect the "
            "decoded picture of the same sampling, or leave `image` unconnected."
        )
    height, width = _panel_size(record, image)
    pictures = []
    for index in range(record.images):
        ground = None if image is None else _grey(image[index], height, width)
        columns = [_column([row.maps[index, p] for row in rows], height, width) for p in range(len(record.phrases))]
        panels = [[_panel(column[r], ground) for column in columns] for r in range(len(rows))]
        pictures.append(_sheet(panels, [row.title for row in rows], record.phrases, boxes))
    return torch.stack(pictures)


def draw_curves(record: AttentionRecord, curves: AttentionCurves) -> torch.Tensor:
    """Draw the measures over the steps, mean over the images; steps that guidance changed are tinted.

    Returns
    -------
    Tensor (1, height, width, 3), float32, in [0, 1]
        One chart below the other: how similar the latents' queries are to each phrase's keys, as in the paper's Fig. 2,
        and the attention that each phrase has, where they were recorded (see `measures.AttentionCurves`); the cosine
        of every two phrases' maps (see `measures.attention_similarity`); where phrases have boxes, the share of
        attention inside them. Dashed: before guidance.
    """
    ends = (0.0, float(max(record.steps - 1, 1)))
    shaded = [(max(first - 0.5, ends[0]), min(last + 0.5, ends[1])) for first, last in _runs(curves.guided_steps)]
    charts = []
    if curves.logit.isfinite().any():
        lines = _lines(curves.steps, record.phrases, curves.logit, curves.logit_unguided)
        title = "Similarity of the latents' queries to each phrase's keys (mean logit, relative to all words)"
        charts.append(draw_chart(title, "step", lines, ends, _range_of(lines, -math.inf, math.inf), shaded))
    if curves.share.isfinite().any():
        lines = _lines(curves.steps, record.phrases, curves.share, curves.share_unguided)
        highest = max((value for line in lines for value in line.y if value == value), default=1.0)
        charts.append(draw_chart("Attention of each phrase", "step", lines, ends, (0.0, 1.05 * highest), shaded))
    names = [" / ".join(record.phrases[i] for i in pair) for pair in curves.pairs]
    lines = _lines(curves.steps, names, curves.similarity, curves.similarity_unguided)
    note = "" if curves.pairs else "the cosine needs two phrases"
    title = "Likeness of the phrases' attention maps (cosine)"
    charts.append(draw_chart(title, "step", lines, ends, _range_of(lines), shaded, note))
    if curves.boxed:
        boxed = [record.phrases[i] for i in curves.boxed]
        lines = _lines(curves.steps, boxed, curves.mass, curves.mass_unguided)
        charts.append(draw_chart("Share of attention inside the box", "step", lines, ends, (0.0, 1.0), shaded))
    return torch.cat([_as_tensor(chart) for chart in charts])[None]


def _lines(steps: Sequence[int], names: Sequence[str], after: torch.Tensor, before: torch.Tensor) -> list[Line]:
    lines = []
    for index, name in enumerate(names):
        colour = COLOURS[index % len(COLOURS)]
        lines.append(Line(name, steps, after[..., index].mean(1).tolist(), colour))
        if before[..., index].isfinite().any():
            values = before[..., index].mean(1).tolist()
            lines.append(Line(f"before: {name}", steps, values, colour, dashed=True))
    return lines


def _range_of(lines: Sequence[Line], least: float = 0.0, most: float = 1.0) -> tuple[float, float]:
    values = [value for line in lines for value in line.y if value == value]  # without NaN
    if not values:
        return 0.0, 1.0
    # A tenth of the scale at least, so that rounding errors are not blown up to a curve.
    low, high = min(values), max(values)
    room = max(0.05 * (high - low), (0.1 - (high - low)) / 2)
    return max(least, low - room), min(most, high + room)


def _runs(steps: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of every unbroken run of steps."""
    groups = ([step for _, step in group] for _, group in groupby(enumerate(steps), key=lambda pair: pair[1] - pair[0]))
    return [(group[0], group[-1]) for group in groups]


def _named(prefix: str, frames: Sequence[AttentionFrame]) -> str:
    if len(frames) == 1:
        return f"{prefix}step {frames[0].step}"
    parts = (f"{first}" if first == last else f"{first} to {last}" for first, last in _runs([f.step for f in frames]))
    return f"{prefix}mean of steps {', '.join(parts)}"


def _mean_over(frames: Sequence[AttentionFrame], before: bool = False) -> torch.Tensor:
    return torch.stack([mean_map((frame.unguided or ()) if before else frame.maps) for frame in frames]).mean(0)


def _panel_size(record: AttentionRecord, image: torch.Tensor | None) -> tuple[int, int]:
    if image is not None:
        height, width = image.shape[1:3]
    else:
        height, width = record.latent_height * _PIXELS_PER_CELL, record.latent_width * _PIXELS_PER_CELL
    longer = max(height, width)
    scale = min(max(longer, _LEAST_SIDE), _MOST_SIDE) / longer
    return max(1, round(height * scale)), max(1, round(width * scale))


def _grey(picture: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Luminance (height, width, 1) of a picture (H, W, 3 or more)."""
    luminance = (picture[..., :3].float().cpu().nan_to_num(0.0) @ torch.tensor([0.299, 0.587, 0.114]))[None, None]
    return torch.nn.functional.interpolate(luminance, (height, width), mode="bilinear")[0, 0, :, :, None].clamp(0, 1)


def _column(maps: Sequence[torch.Tensor], height: int, width: int) -> list[torch.Tensor]:
    """Bring the maps (H, W) of one phrase to the panel's size and to [0, 1], all by the same scale."""
    # A sampling that went wrong may have maps of NaN.
    stacked = torch.stack(list(maps)).nan_to_num(0.0)
    low, high = stacked.min(), stacked.max()
    scaled = (stacked - low) / (high - low).clamp_min(torch.finfo(stacked.dtype).tiny)
    return list(torch.nn.functional.interpolate(scaled[:, None], (height, width), mode="bilinear")[:, 0])


def _panel(values: torch.Tensor, ground: torch.Tensor | None) -> torch.Tensor:
    colours = _colourise(values)
    return colours if ground is None else _COLOUR_SHARE * colours + (1 - _COLOUR_SHARE) * ground


def _sheet(
    panels: Sequence[Sequence[torch.Tensor]],
    titles: Sequence[str],
    phrases: Sequence[str],
    boxes: Sequence[Place | None],
) -> torch.Tensor:
    height, width = panels[0][0].shape[:2]
    sheet = Image.new(
        "RGB",
        (len(phrases) * (width + _GAP) + _GAP, len(panels) * (height + 2 * _BAND + _GAP)),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    letters = font(_TEXT_SIZE)
    top = 0
    for row, title in zip(panels, titles, strict=True):
        draw.text((_GAP, top + _BAND // 2), fit_text(title, _TEXT_SIZE, sheet.width), "black", letters, anchor="lm")
        for column, (panel, phrase, box) in enumerate(zip(row, phrases, boxes, strict=True)):
            left = _GAP + column * (width + _GAP)
            name = fit_text(phrase, _TEXT_SIZE, width)
            draw.text((left, top + _BAND + _BAND // 2), name, "black", letters, anchor="lm")
            picture = Image.fromarray((panel * 255).round().to(torch.uint8).numpy())
            if box is not None:
                x0, y0, x1, y1 = bounding_box(box)
                corners = (x0 * (width - 1), y0 * (height - 1), x1 * (width - 1), y1 * (height - 1))
                ImageDraw.Draw(picture).rectangle(corners, outline="white", width=2)
            sheet.paste(picture, (left, top + 2 * _BAND))
        top += height + 2 * _BAND + _GAP
    return _as_tensor(sheet)


def _as_tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)
