"""A picture of a layout: its boxes or masks, each with its phrase."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..basics.line_chart import COLOURS, fit_text, font
from .layout import Layout

_GROUND, _INK = "#F4F4F4", "#FFFFFF"
_LONGEST_SIDE = 512
_SHADE = 128


def draw_layout(layout: Layout) -> torch.Tensor:
    """Draw the boxes of a layout with their phrases, over the masks where it has any.

    Returns
    -------
    Tensor (1, h, w, 3), float32 in [0, 1]
        In the layout's proportions, 512 pixels on the longer side.
    """
    scale = _LONGEST_SIDE / max(layout.width, layout.height)
    size = max(1, round(layout.width * scale)), max(1, round(layout.height * scale))
    picture = Image.new("RGB", size, _GROUND)
    for index, mask in enumerate(() if layout.masks is None else layout.masks):
        shade = Image.fromarray((mask.cpu() * _SHADE).round().byte().numpy()).resize(size)
        picture.paste(COLOURS[index % len(COLOURS)], mask=shade)
    draw = ImageDraw.Draw(picture)
    letters = font(15)
    for index, (phrase, (x0, y0, x1, y1)) in enumerate(zip(layout.phrases, layout.boxes, strict=True)):
        colour = COLOURS[index % len(COLOURS)]
        left, top = x0 * size[0], y0 * size[1]
        # A box may be smaller than a pixel of the drawing.
        right, bottom = max(left, x1 * size[0] - 1), max(top, y1 * size[1] - 1)
        draw.rectangle((left, top, right, bottom), outline=colour, width=3)
        text = fit_text(phrase, 15, right - left - 8)
        draw.rectangle((left, top, min(right, left + letters.getlength(text) + 8), top + 21), fill=colour)
        draw.text((left + 4, top + 2), text, fill=_INK, font=letters)
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None]
