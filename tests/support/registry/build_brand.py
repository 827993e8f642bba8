"""Draws the registry's icon and banner: `python tests/support/registry/build_brand.py`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from PIL import Image, ImageDraw

from miniworld.world.backgrounds import paint_background
from miniworld.world.instances import INSTANCES
from miniworld.world.placing import place
from support.locations import REPOSITORY

IMAGES = REPOSITORY / "docs" / "images"
GRASS = (95, 170, 70)
BOXES = ("#d0392b", "#1f5fbf")


def composed(side: int, size: float) -> Image.Image:
    """My cat and my boat, each in its box."""
    canvas = paint_background(side, "grass", GRASS, GRASS, 0.56)
    draw = ImageDraw.Draw(canvas)
    for name, across, colour in (("my-cat", 0.26, BOXES[0]), ("my-boat", 0.74, BOXES[1])):
        thing = place(canvas, INSTANCES[name].look, (across, 0.52), size)
        left, top, right, bottom = (round(edge * side) for edge in thing.box)
        margin = side // 40
        edges = (left - margin, top - margin, right + margin, bottom + margin)
        draw.rounded_rectangle(edges, side // 30, outline=colour, width=side // 60)
    return canvas


def main() -> None:
    """Write both pictures: 400 × 400, and 1050 × 450 (21:9)."""
    composed(1200, 0.4).resize((400, 400), Image.Resampling.LANCZOS).save(IMAGES / "icon.png", optimize=True)
    height = round(1200 * 9 / 21)
    top = round(1200 * 0.52 - height / 2)
    banner = composed(1200, 0.32).crop((0, top, 1200, top + height))
    banner.resize((1050, 450), Image.Resampling.LANCZOS).save(IMAGES / "banner.png", optimize=True)


if __name__ == "__main__":
    main()
