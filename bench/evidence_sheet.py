"""The pictures of docs/evidence.md from what ``bench.evidence`` has kept: ``python -m bench.evidence_sheet``."""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from bench.evidence_jobs import INVERSION_SEEDS
from miniworld.world.instances import REPORTING, photos
from miniworld.world.scenes import SIDE

COLUMNS = 6


def kept(folder: Path, experiment: str, cell: str, instance: str, columns: int = COLUMNS) -> list[Image.Image]:
    """Some pictures of a cell, spread evenly over those that are there."""
    files = sorted((folder / "pictures" / experiment / cell).glob(f"{instance} *.png"))
    return [Image.open(file) for file in files[:: max(1, len(files) // columns)][:columns]]


def joined(rows: list[list[Image.Image]]) -> Image.Image:
    """Pictures of one size in rows."""
    sheet = Image.new("RGB", (SIDE * max(map(len, rows)), SIDE * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(picture, (SIDE * x, SIDE * y))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("bench-output/evidence"))
    parser.add_argument("--target", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    alone, composed = [], []
    for thing in REPORTING:
        shown = [Image.fromarray(picture) for picture in photos(thing)[0][:2]]
        for cell in ("textual inversion, alone", "+ semantic, alone"):
            shown += kept(options.folder, "alone", cell, thing.name)
        alone.append(shown)
        for cell in ("textual inversion", "+ semantic", "+ spatial", "+ both"):
            composed.append(kept(options.folder, "textual inversion", cell, thing.name))
    two_own = []
    for method in INVERSION_SEEDS:
        for cell in (method, "+ both"):
            two_own.append(kept(options.folder, f"{method}, two own things", cell, "*", 2 * COLUMNS))
    joined(two_own).save(options.target / "two-own.png")
    joined(alone).save(options.target / "learned.png")
    joined(composed).save(options.target / "composed.png")


if __name__ == "__main__":
    main()
