"""Labelled sheets of pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

GAP, LINE, COLUMNS = 8, 24, 4
INK, PAPER = (30, 30, 34), (255, 255, 255)


@dataclass(frozen=True)
class Panel:
    """A titled group of pictures (H, W, 3) uint8."""

    title: str
    caption: str
    pictures: list[np.ndarray]


def pixels(picture: torch.Tensor) -> np.ndarray:
    """A picture (H, W, 3 or more) of values in [0, 1] as uint8 (H, W, 3)."""
    return np.uint8((picture[..., :3].clamp(0, 1) * 255).round().numpy())


def render(panel: Panel, columns: int) -> Image.Image:
    """One panel: title, caption, and its pictures in rows of ``columns``."""
    side = panel.pictures[0].shape[0]
    rows = -(-len(panel.pictures) // columns)
    lines = 1 + bool(panel.caption)
    sheet = Image.new("RGB", (columns * (side + GAP) - GAP, lines * LINE + rows * (side + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((0, 2), panel.title, INK, ImageFont.load_default(17))
    draw.text((0, 2 + LINE), panel.caption, INK, ImageFont.load_default(14))
    for i, picture in enumerate(panel.pictures):
        corner = (i % columns * (side + GAP), lines * LINE + i // columns * (side + GAP))
        sheet.paste(Image.fromarray(picture), corner)
    return sheet


def stacked(panels: list[Panel], columns: int) -> Image.Image:
    """Panels below one another, each in rows of ``columns``."""
    rendered = [render(panel, columns) for panel in panels]
    width = max(part.width for part in rendered) + 2 * GAP
    sheet = Image.new("RGB", (width, sum(part.height + GAP for part in rendered) + GAP), PAPER)
    y = GAP
    for part in rendered:
        sheet.paste(part, (GAP, y))
        y += part.height + GAP
    return sheet


def contact_sheet(title: str, first: Panel, panels: list[Panel]) -> Image.Image:
    """A sheet with one wide panel on top and the others two by two below."""
    top = render(first, len(first.pictures))
    rendered = [render(panel, COLUMNS) for panel in panels]
    width = max(top.width, 2 * rendered[0].width + 4 * GAP)
    rows = [rendered[i : i + 2] for i in range(0, len(rendered), 2)]
    height = 2 * LINE + top.height + sum(row[0].height + 2 * GAP for row in rows) + 2 * GAP
    sheet = Image.new("RGB", (width + 4 * GAP, height + 2 * GAP), PAPER)
    ImageDraw.Draw(sheet).text((2 * GAP, GAP), title, INK, ImageFont.load_default(20))
    y = GAP + 2 * LINE - 8
    sheet.paste(top, (2 * GAP, y))
    y += top.height + 2 * GAP
    for row in rows:
        for i, panel in enumerate(row):
            sheet.paste(panel, (2 * GAP + i * (panel.width + 4 * GAP), y))
        y += row[0].height + 2 * GAP
    return sheet
