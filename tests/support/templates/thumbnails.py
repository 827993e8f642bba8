"""Makes the pictures of templates and help pages: photos of an own thing, and what the miniature world made of them.

They are cut out of the contact sheets in docs/images/: `python tests/support/templates/thumbnails.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from PIL import Image, ImageDraw

from miniworld.laboratory.contact_sheet import GAP, LINE
from miniworld.world.scenes import SIDE, render_scene
from support.locations import REPOSITORY

IMAGES, WORKFLOWS, HELP = REPOSITORY / "docs" / "images", REPOSITORY / "workflows", REPOSITORY / "web" / "docs"
SMALL, LARGE, EDGE = 164, 248, 8
STEP = SIDE + GAP
# Of the sheets: file, left edge and top edge of the first picture.
DEMO, METHODS, OWN = "ablation.png", "three-methods.png", "own-things.jpg"
PHOTOS = [(DEMO, 16 + STEP * number, 72, SIDE) for number in range(3)]
UNGUIDED = [(DEMO, 16 + STEP * column, 272 + STEP * row, SIDE) for row, column in ((0, 0), (1, 2))]
GUIDED = [(DEMO, 16 + STEP * column, 608 + STEP * row, SIDE) for row, column in ((0, 0), (1, 2))]
BOTH = [(DEMO, 584 + STEP * column, 608 + STEP * row, SIDE) for row, column in ((0, 0), (0, 2), (0, 3), (1, 3))]
ALONE = [(OWN, 104 + 102 * column, 12 * 126 + 25, 96) for column in range(3)] + [(OWN, 104, 13 * 126 + 25, 96)]

Cut = tuple[str, int, int, int]


def method(panel: int, columns: tuple[int, ...]) -> list[Cut]:
    """Pictures of a panel of the sheet of methods; its panels have a title, a caption and a row each."""
    top = 2 * (GAP + LINE) + STEP + LINE + panel * (2 * LINE + STEP + GAP)
    return [(METHODS, GAP + STEP * column, top, SIDE) for column in columns]


def cut(piece: Cut, side: int) -> Image.Image:
    name, left, top, size = piece
    with Image.open(IMAGES / name) as sheet:
        picture = sheet.convert("RGB").crop((left, top, left + size, top + size))
    return picture.resize((side, side), Image.Resampling.LANCZOS)


def scenes() -> list[Image.Image]:
    """Pictures of noun pairs with the boxes that a layout predictor learns from."""
    made = []
    for seed, pair in enumerate((("cat", "boat"), ("tree", "house"), ("moon", "car"), ("cup", "fish"))):
        scene = render_scene(np.random.default_rng(seed), pair)
        picture = Image.fromarray(scene.image).resize((LARGE, LARGE), Image.Resampling.LANCZOS)
        draw = ImageDraw.Draw(picture)
        for thing, colour in zip(scene.objects, ("#d0392b", "#1f5fbf"), strict=True):
            draw.rectangle([edge * LARGE for edge in thing.box], outline=colour, width=5)
        made.append(picture)
    return made


def thumbnail(photos: list[Image.Image], results: list[Image.Image]) -> Image.Image:
    """Photos in a column, if there are any, and four results beside them."""
    left = SMALL + 2 * EDGE if photos else 0
    sheet = Image.new("RGB", (left + 2 * LARGE + 3 * EDGE, 2 * LARGE + 3 * EDGE), "white")
    for number, picture in enumerate(photos):
        sheet.paste(picture, (EDGE, EDGE + number * (SMALL + EDGE)))
    for number, picture in enumerate(results):
        row, column = divmod(number, 2)
        sheet.paste(picture, (left + EDGE + column * (LARGE + EDGE), EDGE + row * (LARGE + EDGE)))
    return sheet


def main() -> None:
    """Write all of them."""
    results = {
        "01-train-concept": ALONE,
        "02-compose-with-boxes": method(3, (1, 2, 4, 7)),
        "03-compose-with-predicted-layout": BOTH,
        "05-custom-diffusion": method(11, (1, 4, 5, 7)),
        "06-dreambooth": method(7, (1, 2, 4, 6)),
        "08-miniature-world": BOTH,
    }
    for name, pieces in results.items():
        photos = [cut(piece, SMALL) for piece in PHOTOS] if not name.startswith(("02", "03")) else []
        picture = thumbnail(photos, [cut(piece, LARGE) for piece in pieces])
        for path in WORKFLOWS.glob(f"{name}*.json"):
            picture.save(path.with_suffix(".jpg"), quality=85)
    thumbnail([], scenes()).save(WORKFLOWS / "04-train-layout-predictor.jpg", quality=85)
    own = [cut(("first-world/two-own.png", SIDE * column, 5 * SIDE, SIDE), LARGE) for column in (4, 6, 8, 10)]
    thumbnail([], own).save(WORKFLOWS / "07-two-concepts.jpg", quality=85)

    for node, name in {
        "CompInvTrainConcept": "01-train-concept",
        "CompInvTrainCustomDiffusion": "05-custom-diffusion",
        "CompInvTrainDreamBooth": "06-dreambooth",
        "CompInvCollectLayouts": "04-train-layout-predictor",
    }.items():
        with Image.open(WORKFLOWS / f"{name}.jpg") as picture:
            picture.reduce(2).save(HELP / f"{node}.jpg", quality=85)
    pairs = [cut(piece, LARGE) for pair in zip(UNGUIDED, GUIDED, strict=True) for piece in pair]
    thumbnail([], pairs).reduce(2).save(HELP / "CompInvApplyLayoutGuidance.jpg", quality=85)


if __name__ == "__main__":
    main()
