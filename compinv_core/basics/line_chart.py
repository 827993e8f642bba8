"""Line charts drawn with Pillow, which every ComfyUI has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 960, 400
"""Size of one chart in pixels."""

# Distinguishable with any colour vision (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

_MARGIN_LEFT, _MARGIN_TOP, _MARGIN_RIGHT, _MARGIN_BOTTOM = 64, 44, 300, 48
_INK, _GRID, _SHADE = "#333333", "#DDDDDD", "#EEF3F8"
_TEXT_SIZE, _TITLE_SIZE = 14, 17
_DASH, _GAP = 7, 5
_MOST_TICKS = 8


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Parameters
    ----------
    x, y : sequence of float
        Points; where y is NaN the line is interrupted.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    dashed: bool = False


def draw_chart(
    title: str,
    x_label: str,
    lines: Sequence[Line],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    shaded: Sequence[tuple[float, float]] = (),
    note: str = "",
) -> Image.Image:
    """Draw lines over a common axis, with a legend at the right.

    Parameters
    ----------
    lines : sequence of Line
        May be empty.
    x_range, y_range : (float, float)
        Ends of the axes.
    shaded : sequence of (x0, x1)
        Stretches of the x axis with a tinted ground.
    note : str
        Written into the middle of the chart.

    Returns
    -------
    PIL.Image.Image
        RGB, `WIDTH` × `HEIGHT`.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    axes = _Axes(x_range, y_range)
    for x0, x1 in shaded:
        draw.rectangle((axes.x(x0), axes.top, axes.x(x1), axes.bottom), fill=_SHADE)
    _draw_axes(draw, axes, x_label)
    for line in lines:
        _draw_line(draw, axes, line)
    _draw_legend(draw, lines)
    draw.text((_MARGIN_LEFT, 12), title, fill=_INK, font=font(_TITLE_SIZE))
    middle = ((axes.left + axes.right) / 2, (axes.top + axes.bottom) / 2)
    draw.text(middle, note, fill=_INK, font=font(_TITLE_SIZE), anchor="mm")
    return image


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that Pillow brings along, in a size in pixels."""
    return ImageFont.load_default(size)


def fit_text(text: str, size: int, width: float) -> str:
    """Shorten a text to a width, with an ellipsis; both sizes in pixels."""
    letters = font(size)
    if letters.getlength(text) <= width:
        return text
    while text and letters.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


class _Axes:
    """From values to pixels."""

    left, top, right, bottom = _MARGIN_LEFT, _MARGIN_TOP, WIDTH - _MARGIN_RIGHT, HEIGHT - _MARGIN_BOTTOM

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
        self.x_range, self.y_range = _widened(x_range), _widened(y_range)

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Return round numbers within a range, at most eight or so.

    Parameters
    ----------
    low, high : float
        low < high.
    whole : bool
        Only integers.

    Returns
    -------
    list of float
        Ascending; multiples of 1, 2 or 5 times a power of ten.
    """
    power = 10.0 ** math.floor(math.log10((high - low) / _MOST_TICKS))
    step = next(factor * power for factor in (1, 2, 5, 10) if (high - low) / (factor * power) <= _MOST_TICKS)
    if whole:
        step = max(1.0, step)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _widened(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = ends
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _draw_axes(draw: ImageDraw.ImageDraw, axes: _Axes, x_label: str) -> None:
    letters = font(_TEXT_SIZE)
    for value in ticks(*axes.y_range):
        y = axes.y(value)
        draw.line((axes.left, y, axes.right, y), fill=_GRID)
        draw.text((axes.left - 8, y), f"{value:.6g}", fill=_INK, font=letters, anchor="rm")
    for value in ticks(*axes.x_range, whole=True):
        x = axes.x(value)
        draw.line((x, axes.bottom, x, axes.bottom + 5), fill=_INK)
        draw.text((x, axes.bottom + 8), f"{value:.0f}", fill=_INK, font=letters, anchor="ma")
    draw.line((axes.left, axes.top, axes.left, axes.bottom, axes.right, axes.bottom), fill=_INK)
    draw.text((axes.right, HEIGHT - 6), x_label, fill=_INK, font=letters, anchor="rs")


def _draw_line(draw: ImageDraw.ImageDraw, axes: _Axes, line: Line) -> None:
    points = [
        None if math.isnan(y) else (axes.x(x), axes.y(min(max(y, axes.y_range[0]), axes.y_range[1])))
        for x, y in zip(line.x, line.y, strict=True)
    ]
    for start, end in pairwise(points):
        if start and end:
            _draw_stroke(draw, start, end, line)
    for point in filter(None, points):
        x, y = point
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill="white" if line.dashed else line.colour, outline=line.colour)


def _draw_stroke(draw: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], line: Line) -> None:
    if not line.dashed:
        draw.line((*start, *end), fill=line.colour, width=2)
        return
    length = math.dist(start, end)
    along = lambda part: tuple(a + (b - a) * part for a, b in zip(start, end, strict=True))  # noqa: E731
    for index in range(math.ceil(length / (_DASH + _GAP))):
        begin = index * (_DASH + _GAP)
        draw.line((*along(begin / length), *along(min((begin + _DASH) / length, 1))), fill=line.colour, width=2)


def _draw_legend(draw: ImageDraw.ImageDraw, lines: Sequence[Line]) -> None:
    left, row = WIDTH - _MARGIN_RIGHT + 16, _MARGIN_TOP + 4
    room = (HEIGHT - _MARGIN_BOTTOM - row) // 20
    shown = lines if len(lines) <= room else lines[: room - 1]
    for line in shown:
        _draw_stroke(draw, (left, row + 7), (left + 28, row + 7), line)
        text = fit_text(line.label, _TEXT_SIZE, WIDTH - left - 44)
        draw.text((left + 36, row), text, fill=_INK, font=font(_TEXT_SIZE))
        row += 20
    if len(shown) < len(lines):
        draw.text((left, row), f"and {len(lines) - len(shown)} more", fill=_INK, font=font(_TEXT_SIZE))
