"""Draw the nouns of the miniature world: one function per noun, in unit coordinates.

Every function draws inside the square [-1, 1] × [-1, 1] (y points down) with a :class:`Pen`, so that a noun's shape can
be read off its numbers. ``pen.body`` is the object's own colour: the pattern of a "striped" or "spotted" object is
painted over exactly those pixels afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]


def darker(colour: Colour, factor: float = 0.55) -> Colour:
    return tuple(int(v * factor) for v in colour)


def lighter(colour: Colour, amount: float = 0.5) -> Colour:
    return tuple(int(v + (255 - v) * amount) for v in colour)


class Pen:
    """Draws on a transparent square layer in unit coordinates.

    Parameters
    ----------
    size
        Side of the object in canvas pixels (unit coordinates -1 … 1).
    body
        Colour of the object, RGB in 0 … 255.
    """

    MARGIN = 1.2

    def __init__(self, size: float, body: Colour) -> None:
        self.half = size / 2
        self.body = body
        self.edge = darker(body, 0.45)
        self.width = max(2, round(size * 0.045))
        side = math.ceil(size * self.MARGIN)
        self.layer = Image.new("RGBA", (side, side))
        self.centre = side / 2
        self._draw = ImageDraw.Draw(self.layer)

    def _at(self, *values: float) -> list[float]:
        return [self.centre + v * self.half for v in values]

    def ellipse(self, x0: float, y0: float, x1: float, y1: float, fill: Colour, outline: bool = False) -> None:
        self._draw.ellipse(
            self._at(x0, y0, x1, y1), fill=fill, outline=self.edge if outline else None, width=self.width
        )

    def circle(self, x: float, y: float, radius: float, fill: Colour, outline: bool = False) -> None:
        self.ellipse(x - radius, y - radius, x + radius, y + radius, fill, outline)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, fill: Colour, outline: bool = False) -> None:
        self._draw.rectangle(
            self._at(x0, y0, x1, y1), fill=fill, outline=self.edge if outline else None, width=self.width
        )

    def polygon(self, points: list[tuple[float, float]], fill: Colour, outline: bool = False) -> None:
        corners = [tuple(self._at(x, y)) for x, y in points]
        self._draw.polygon(corners, fill=fill, outline=self.edge if outline else None, width=self.width)

    def line(self, x0: float, y0: float, x1: float, y1: float, fill: Colour, width: float) -> None:
        self._draw.line(self._at(x0, y0, x1, y1), fill=fill, width=max(1, round(width * self.half)))

    def arc(self, box: tuple[float, float, float, float], start: float, end: float, fill: Colour, width: float) -> None:
        self._draw.arc(self._at(*box), start, end, fill=fill, width=max(1, round(width * self.half)))

    def half_disc(self, box: tuple[float, float, float, float], fill: Colour) -> None:
        self._draw.pieslice(self._at(*box), 180, 360, fill=fill, outline=self.edge, width=self.width)

    def paint_pattern(self, pattern: str, colour: Colour) -> None:
        """Recolour part of the body: "striped", "spotted" or "checked"."""
        pixels = np.array(self.layer)
        axis = (np.arange(pixels.shape[0]) + 0.5 - self.centre) / self.half
        x, y = axis[None, :], axis[:, None]
        if pattern == "striped":
            where = (np.floor(x * 2.5 + 0.5) % 2 == 1) & (y > -9)
        elif pattern == "spotted":
            where = ((x * 2.0 % 1) - 0.5) ** 2 + ((y * 2.0 % 1) - 0.5) ** 2 < 0.085
        elif pattern == "checked":
            where = (np.floor(x * 2.2) + np.floor(y * 2.2)) % 2 == 1
        else:
            raise ValueError(f"There is no pattern {pattern!r}; the patterns are striped, spotted and checked.")
        body = (pixels[..., :3] == np.array(self.body, np.uint8)).all(-1) & (pixels[..., 3] == 255)
        pixels[body & where, :3] = colour
        self.layer = Image.fromarray(pixels)


def ball(pen: Pen) -> None:
    pen.circle(0, 0, 1, pen.body, outline=True)
    pen.ellipse(-0.6, -0.7, -0.1, -0.25, lighter(pen.body, 0.65))


def cube(pen: Pen) -> None:
    pen.polygon([(-0.9, -0.45), (-0.4, -0.95), (0.95, -0.95), (0.45, -0.45)], lighter(pen.body, 0.45), outline=True)
    pen.polygon([(0.45, -0.45), (0.95, -0.95), (0.95, 0.4), (0.45, 0.9)], darker(pen.body, 0.7), outline=True)
    pen.rectangle(-0.9, -0.45, 0.45, 0.9, pen.body, outline=True)


def star(pen: Pen) -> None:
    radii = [1 if i % 2 == 0 else 0.42 for i in range(10)]
    points = [(r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5)) for i, r in enumerate(radii)]
    pen.polygon(points, pen.body, outline=True)


def tree(pen: Pen) -> None:
    pen.rectangle(-0.16, 0.3, 0.16, 1, (105, 70, 40))
    for x, y, r in ((-0.35, 0.05, 0.42), (0.35, 0.05, 0.42), (0, -0.45, 0.55)):
        pen.circle(x, y, r, pen.body, outline=True)
    pen.ellipse(-0.45, -0.5, 0.45, 0.38, pen.body)


def house(pen: Pen) -> None:
    glass = (170, 220, 250)
    pen.rectangle(-0.75, -0.15, 0.75, 0.95, pen.body, outline=True)
    pen.polygon([(-1, -0.15), (0, -1), (1, -0.15)], darker(pen.body, 0.55), outline=True)
    pen.rectangle(-0.15, 0.35, 0.2, 0.95, (90, 55, 30))
    pen.rectangle(-0.6, 0.08, -0.28, 0.38, glass, outline=True)
    pen.rectangle(0.32, 0.08, 0.62, 0.38, glass, outline=True)


def car(pen: Pen) -> None:
    pen.polygon([(-0.6, -0.05), (-0.38, -0.55), (0.32, -0.55), (0.65, -0.05)], (175, 220, 245), outline=True)
    pen.rectangle(-1, -0.1, 1, 0.42, pen.body, outline=True)
    for x in (-0.55, 0.55):
        pen.circle(x, 0.45, 0.26, (35, 35, 40))
        pen.circle(x, 0.45, 0.11, (205, 205, 205))


def cup(pen: Pen) -> None:
    pen.arc((0.25, -0.5, 1.0, 0.45), -100, 100, pen.edge, 0.18)
    pen.polygon([(-0.75, -0.75), (0.6, -0.75), (0.42, 0.9), (-0.55, 0.9)], pen.body, outline=True)
    pen.ellipse(-0.75, -0.95, 0.6, -0.55, darker(pen.body, 0.6), outline=True)


def fish(pen: Pen) -> None:
    pen.polygon([(0.4, 0), (1, -0.55), (1, 0.55)], darker(pen.body, 0.75), outline=True)
    pen.polygon([(-0.3, -0.45), (0.25, -0.45), (0.2, -0.85)], darker(pen.body, 0.75), outline=True)
    pen.ellipse(-1, -0.58, 0.6, 0.58, pen.body, outline=True)
    pen.circle(-0.62, -0.1, 0.14, (255, 255, 255))
    pen.circle(-0.64, -0.1, 0.07, (0, 0, 0))


def flower(pen: Pen) -> None:
    pen.rectangle(-0.07, 0.1, 0.07, 1, (50, 130, 50))
    pen.polygon([(0.05, 0.8), (0.55, 0.4), (0.45, 0.8)], (60, 150, 60))
    for i in range(6):
        pen.circle(
            0.43 * math.cos(i * math.pi / 3), -0.35 + 0.43 * math.sin(i * math.pi / 3), 0.28, pen.body, outline=True
        )
    pen.circle(0, -0.35, 0.23, (250, 200, 40), outline=True)


def moon(pen: Pen) -> None:
    outer = [(math.cos(t) + 0.15, math.sin(t)) for t in np.radians(np.linspace(50, 310, 26))]
    inner = [(0.47 + 0.78 * math.cos(t), 0.78 * math.sin(t)) for t in np.radians(np.linspace(292, 68, 26))]
    pen.polygon(outer + inner, pen.body, outline=True)


def heart(pen: Pen) -> None:
    t = np.linspace(0, 2 * math.pi, 50)
    x = 16 * np.sin(t) ** 3 / 17
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 17
    pen.polygon(list(zip(x.tolist(), y.tolist(), strict=True)), pen.body, outline=True)


def boat(pen: Pen) -> None:
    pen.rectangle(-0.06, -0.95, 0.06, 0.35, (90, 60, 35))
    pen.polygon([(0.1, -0.9), (0.1, 0.22), (0.85, 0.22)], (250, 250, 245), outline=True)
    pen.polygon([(-0.1, -0.6), (-0.1, 0.22), (-0.65, 0.22)], lighter(pen.body, 0.7), outline=True)
    pen.polygon([(-1, 0.35), (1, 0.35), (0.65, 0.9), (-0.65, 0.9)], pen.body, outline=True)


def mushroom(pen: Pen) -> None:
    pen.polygon([(-0.3, 0), (0.3, 0), (0.38, 0.92), (-0.38, 0.92)], (240, 225, 200), outline=True)
    pen.half_disc((-0.95, -0.95, 0.95, 0.95), pen.body)
    for x, y, r in ((-0.5, -0.32, 0.14), (0.02, -0.6, 0.17), (0.5, -0.3, 0.13)):
        pen.circle(x, y, r, (255, 250, 245))


def key(pen: Pen) -> None:
    for grow, colour in ((0.06, pen.edge), (0, pen.body)):
        pen.arc((-1 - grow, -0.48 - grow, -0.1 + grow, 0.42 + grow), 0, 360, colour, 0.27 + 2 * grow)
        for x0, y0, x1, y1 in ((-0.15, -0.16, 0.97, 0.12), (0.4, 0.1, 0.6, 0.52), (0.77, 0.1, 0.97, 0.44)):
            pen.rectangle(x0 - grow, y0 - grow, x1 + grow, y1 + grow, colour)


def bird(pen: Pen) -> None:
    legs = (210, 130, 30)
    pen.rectangle(-0.12, 0.5, -0.03, 0.92, legs)
    pen.rectangle(0.15, 0.5, 0.24, 0.92, legs)
    pen.polygon([(0.5, 0.0), (1.05, -0.35), (1.05, 0.2)], darker(pen.body, 0.7), outline=True)
    pen.ellipse(-0.55, -0.4, 0.68, 0.58, pen.body, outline=True)
    pen.circle(-0.48, -0.36, 0.4, pen.body, outline=True)
    pen.polygon([(-0.82, -0.45), (-1.12, -0.27), (-0.8, -0.18)], (250, 170, 30))
    pen.circle(-0.58, -0.42, 0.09, (0, 0, 0))
    pen.polygon([(-0.12, -0.1), (0.5, -0.05), (0.15, 0.4)], darker(pen.body, 0.65))


def cat(pen: Pen) -> None:
    pen.polygon([(-0.72, -0.3), (-0.66, -1), (-0.18, -0.65)], pen.body, outline=True)
    pen.polygon([(0.72, -0.3), (0.66, -1), (0.18, -0.65)], pen.body, outline=True)
    pen.ellipse(-0.85, -0.78, 0.85, 0.72, pen.body, outline=True)
    for side in (-1, 1):
        pen.ellipse(side * 0.38 - 0.22, -0.34, side * 0.38 + 0.22, 0.1, (250, 250, 200))
        pen.ellipse(side * 0.38 - 0.09, -0.28, side * 0.38 + 0.09, 0.06, (0, 0, 0))
        for y in (0.18, 0.36):
            pen.line(side * 0.22, 0.27, side * 0.8, y, (30, 30, 30), 0.05)
    pen.polygon([(-0.12, 0.13), (0.12, 0.13), (0, 0.3)], (235, 110, 130))


NOUNS: dict[str, Callable[[Pen], None]] = {
    f.__name__: f
    for f in (ball, cube, star, tree, house, car, cup, fish, flower, moon, heart, boat, mushroom, key, bird, cat)
}
