"""Backgrounds of the miniature world: landscapes with a horizon, and two-tone wallpapers."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .drawing import Colour, darker, lighter

LANDSCAPES: dict[str, Colour] = {
    "grass": (95, 170, 70), "sand": (225, 195, 130), "snow": (238, 242, 250), "water": (50, 120, 190)}
WALLPAPERS = ("stripes", "dots", "bricks", "checks")
BACKGROUNDS = ("plain", *LANDSCAPES, "night", *WALLPAPERS)
TILE = 1 / 4
"""Period of a wallpaper as a share of the picture's side."""


def _gradient(draw: ImageDraw.ImageDraw, side: int, top: Colour, bottom: Colour, y0: int, y1: int) -> None:
    rows = 4
    for y in range(y0, y1, rows):
        f = (y - y0) / max(1, y1 - y0)
        colour = tuple(int(a + (b - a) * f) for a, b in zip(top, bottom, strict=True))
        draw.rectangle([0, y, side, y + rows], fill=colour)


def _landscape(draw: ImageDraw.ImageDraw, side: int, name: str, ground: Colour, horizon: float) -> None:
    line = int(horizon * side)
    _gradient(draw, side, (150, 200, 240), (215, 235, 250), 0, line)
    _gradient(draw, side, ground, darker(ground, 0.85), line, side)
    if name == "water":
        for i in range(4):
            for j in range(3):
                x, y = (i * 0.25 + (j % 2) * 0.125 + 0.03) * side, line + (0.055 + 0.125 * j) * side
                draw.line([x, y, x + 0.11 * side, y], fill=lighter(ground, 0.5), width=max(1, round(0.027 * side)))


def _night(draw: ImageDraw.ImageDraw, side: int) -> None:
    _gradient(draw, side, (15, 18, 50), (45, 45, 95), 0, side)
    for i in range(8):
        for j in range(4):
            x, y = (i / 8 + 0.045) * side, (j / 4 + (i % 2) / 8 + 0.045) * side
            draw.ellipse([x, y, x + 0.03 * side, y + 0.03 * side], fill=(240, 240, 200))


def _wallpaper(draw: ImageDraw.ImageDraw, side: int, name: str, first: Colour, second: Colour) -> None:
    draw.rectangle([0, 0, side, side], fill=first)
    tile = round(TILE * side)
    half = tile // 2
    for i, x in enumerate(range(0, side, tile)):
        if name == "stripes":
            draw.rectangle([x, 0, x + half - 1, side], fill=second)
            continue
        for j, y in enumerate(range(0, side, tile)):
            if name == "dots":
                draw.ellipse([x + half / 2, y + half / 2, x + half * 1.5, y + half * 1.5], fill=second)
            elif name == "checks" and (i + j) % 2:
                draw.rectangle([x, y, x + tile - 1, y + tile - 1], fill=second)
            elif name == "bricks":
                gap = max(2, side // 48)
                draw.rectangle([x, y, x + tile - gap, y + half - gap], fill=second)
                draw.rectangle([x - half, y + half, x + half - gap, y + tile - gap], fill=second)
                draw.rectangle([x + half, y + half, x + tile + half - gap, y + tile - gap], fill=second)


def paint_background(
    side: int, name: str, first: Colour, second: Colour, horizon: float = 0.55
) -> Image.Image:
    """Paint one background.

    Parameters
    ----------
    side
        Side of the canvas in pixels.
    name
        One of :data:`BACKGROUNDS`.
    first, second
        RGB colours: the two tones of a wallpaper; a plain ground shades from a lighter to a darker ``first``; the
        ground of a landscape is ``first``. A night ignores both.
    horizon
        Height of the horizon of a landscape, as a share of the picture from its top.
    """
    image = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(image)
    if name == "plain":
        _gradient(draw, side, lighter(first, 0.15), darker(first, 0.9), 0, side)
    elif name in LANDSCAPES:
        _landscape(draw, side, name, first, horizon)
    elif name == "night":
        _night(draw, side)
    elif name in WALLPAPERS:
        _wallpaper(draw, side, name, first, second)
    else:
        raise ValueError(f"There is no background {name!r}; the backgrounds are {', '.join(BACKGROUNDS)}.")
    return image


def jitter(colour: Colour, rng: np.random.Generator, amount: int = 14) -> Colour:
    """A colour near the given one: the same noise on three channels, independently, in ±``amount``."""
    return tuple(int(np.clip(v + rng.integers(-amount, amount + 1), 0, 255)) for v in colour)
