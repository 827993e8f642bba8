"""What a thing looks like: a noun in a body colour, perhaps a pattern in a second colour and a mark in a third."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .backgrounds import jitter
from .drawing import NOUNS, Colour, Pen

CONTRAST = 80.0
"""Least RGB distance between an object's colour and the tones behind it, and between two colours of one object."""

COLOURS: dict[str, Colour] = {
    "red": (214, 40, 40), "orange": (240, 140, 30), "yellow": (245, 215, 50), "green": (60, 160, 70),
    "blue": (50, 100, 210), "purple": (140, 60, 170), "pink": (240, 140, 180), "white": (240, 240, 240),
    "brown": (130, 85, 45), "gray": (130, 135, 140), "black": (35, 35, 42),
}  # fmt: skip
PATTERNS = ("striped", "spotted", "checked")
MARKS = ("hat", "collar", "patch")
USUAL_COLOURS = {
    "tree": ("green",), "moon": ("yellow", "white"), "star": ("yellow", "orange"), "heart": ("red", "pink"),
    "mushroom": ("red", "brown"), "key": ("yellow", "gray"), "cat": ("orange", "gray", "brown"),
    "house": ("brown", "white", "red"),
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """What one object looks like.

    Attributes
    ----------
    noun
        One of ``drawing.NOUNS``.
    body, second, third
        RGB of the body, of the pattern and of the mark; the latter two count only where there is such a thing.
    pattern, mark
        One of :data:`PATTERNS` and :data:`MARKS`, or "".
    words
        The palette's words for the three colours; "" for a colour that has none.
    name
        The name of this one thing, for those that have one (``names.NAMED``).
    """

    noun: str
    body: Colour
    pattern: str = ""
    second: Colour = (0, 0, 0)
    mark: str = ""
    third: Colour = (0, 0, 0)
    words: tuple[str, str, str] = ("", "", "")
    name: str = ""

    def seen_again(self, rng: np.random.Generator, amount: int = 6) -> Look:
        """The same thing in slightly other light."""
        body, second, third = (jitter(colour, rng, amount) for colour in (self.body, self.second, self.third))
        return Look(self.noun, body, self.pattern, second, self.mark, third, self.words, self.name)


def pick(rng: np.random.Generator, options):
    return options[int(rng.integers(len(options)))]


def distance(a: Colour, b: Colour) -> float:
    """Euclidean distance of two RGB colours."""
    return sum((int(u) - int(v)) ** 2 for u, v in zip(a, b, strict=True)) ** 0.5


def _colour(
    rng: np.random.Generator, avoid: tuple[Colour, ...], usual: tuple[str, ...], free: float
) -> tuple[Colour, str]:
    """A colour away from others, and the palette's word for it; with probability ``free`` any RGB, without a word."""
    if rng.random() < free:
        rgb: Colour = (0, 0, 0)
        for _ in range(8):
            red, green, blue = (int(v) for v in rng.integers(15, 251, 3))
            rgb = (red, green, blue)
            if all(distance(rgb, other) > CONTRAST for other in avoid):
                break
        return rgb, ""
    options = usual if usual and rng.random() < 0.5 else tuple(COLOURS)
    gap = {c: min((distance(COLOURS[c], other) for other in avoid), default=999.0) for c in COLOURS}
    word = pick(rng, [c for c in options if gap[c] > CONTRAST] or [max(COLOURS, key=gap.__getitem__)])
    return jitter(COLOURS[word], rng), word


def random_look(
    rng: np.random.Generator,
    noun: str,
    tones: tuple[Colour, ...] = (),
    free: float = 0.0,
    patterned: float = 0.5,
    marked: float = 0.35,
) -> Look:
    """A look for the noun that stands out from the tones.

    Parameters
    ----------
    free
        Probability of any one colour to be no palette colour.
    patterned, marked
        Probabilities of a pattern and of a mark.
    """
    body, first = _colour(rng, tones, USUAL_COLOURS.get(noun, ()), free)
    pattern = pick(rng, PATTERNS) if rng.random() < patterned else ""
    second, second_word = _colour(rng, (body,), (), free) if pattern else ((0, 0, 0), "")
    mark = pick(rng, MARKS) if rng.random() < marked else ""
    behind = (body, second) if pattern else (body,)
    third, third_word = _colour(rng, behind, (), free) if mark else ((0, 0, 0), "")
    return Look(noun, body, pattern, second, mark, third, (first, second_word, third_word))


def drawn(look: Look, size: float) -> Pen:
    """A pen that has drawn the look on its own layer, ``size`` canvas pixels large."""
    pen = Pen(size, look.body)
    NOUNS[look.noun](pen)
    body = _body(pen) if look.mark else None
    if look.pattern:
        pen.paint_pattern(look.pattern, look.second)
    if body is not None:
        _paint_mark(pen, look.mark, look.third, body)
    return pen


def _body(pen: Pen) -> np.ndarray:
    pixels = np.asarray(pen.layer)
    return (pixels[..., :3] == np.array(pen.body, np.uint8)).all(-1) & (pixels[..., 3] == 255)


def _paint_mark(pen: Pen, mark: str, colour: Colour, body: np.ndarray) -> None:
    """Add a mark to a drawn object; ``body`` (n, n) bool is where its own colour was before the pattern."""
    pixels = np.array(pen.layer)
    solid = pixels[..., 3] == 255
    rows, columns = np.nonzero(body)
    if len(rows) < 8:
        rows, columns = np.nonzero(solid)
    if mark == "hat":
        _paint_hat(pen, colour, solid)
        return
    y, x = np.mgrid[: len(solid), : len(solid)]
    if mark == "collar":
        top, bottom = np.percentile(rows, 1), np.percentile(rows, 99)
        low = top + 0.52 * (bottom - top)
        where = (y >= low) & (y < low + 0.26 * pen.half + 1)
    elif mark == "patch":
        cy, cx = np.median(rows) - 0.12 * pen.half, np.median(columns) + 0.2 * pen.half
        where = (y - cy) ** 2 + (x - cx) ** 2 < (0.36 * pen.half) ** 2
    else:
        raise ValueError(f"There is no mark {mark!r}; the marks are {', '.join(MARKS)}.")
    pixels[solid & where] = (*colour, 255)
    pen.layer = Image.fromarray(pixels)


def _paint_hat(pen: Pen, colour: Colour, solid: np.ndarray) -> None:
    highest = np.nonzero(solid.any(1))[0][0]
    cx = float(np.nonzero(solid[highest + int(0.1 * pen.half)])[0].mean())
    h = pen.half
    brim = max(highest + 0.16 * h, 0.42 * h)
    edge = tuple(int(v * 0.45) for v in colour)
    draw = ImageDraw.Draw(pen.layer)
    draw.rectangle([cx - 0.3 * h, brim - 0.4 * h, cx + 0.3 * h, brim], fill=colour, outline=edge, width=pen.width)
    draw.rectangle(
        [cx - 0.55 * h, brim - 0.09 * h, cx + 0.55 * h, brim + 0.09 * h],
        fill=colour,
        outline=edge,
        width=max(1, pen.width // 2),
    )
