"""Reproduce the paper's Table 1, its figures and its rating study: ``python -m bench.reproduce``.

On the miniature world by default; with ``--checkpoint`` on a Stable Diffusion 1 of yours. A killed run goes on where it
was and ends in the same bytes.
"""

from __future__ import annotations

import argparse
import json
import logging
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from pathlib import Path

from PIL import Image

from compinv_core.basics.atomic_file import replacing
from compinv_core.basics.errors import UserError
from miniworld.laboratory.contact_sheet import pixels

from .figures import write_figures
from .protocol import METHODS, NOUN, OWN, TIERS, stages
from .rating import write_rating_page
from .run import run, workers
from .store import Store
from .tables import ablation, as_json, table_one
from .worlds import Place, World

log = logging.getLogger("compinv.reproduce")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", choices=TIERS, default="smoke")
    parser.add_argument("--folder", type=Path, default=Path("bench-output/reproduce"))
    parser.add_argument(
        "--workers", type=int, default=1, help="processes, of one thread each; with --ray Ray's workers"
    )
    parser.add_argument("--ray", action="store_true", help="hand the blocks to Ray (pip install ray)")
    parser.add_argument("--rounds", type=int, help="at most so many instead of the tier's")
    miniature = parser.add_argument_group("painting")
    miniature.add_argument("--steps", type=int, help="sampling steps instead of the world's")
    parser.add_argument("--cpu", action="store_true", help="compute on the CPU though there is a graphics card")
    real = parser.add_argument_group("Stable Diffusion")
    real.add_argument("--checkpoint", default="", help="file of a Stable Diffusion 1; empty is the miniature world")
    real.add_argument("--photos", default="", help="own things as CLASS/NAME/*.png")
    real.add_argument("--clip", default="openai/clip-vit-base-patch32", help="as in Evaluate Images")
    real.add_argument("--detector", default="", help="a DETR as in Load Detector, such as facebook/detr-resnet-50")
    real.add_argument("--predictor", default="", help="a layout predictor as in Load Layout Predictor")
    real.add_argument("--side", type=int, default=512, help="of pictures in pixels")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    tier = TIERS[options.tier] if options.rounds is None else replace(TIERS[options.tier], rounds=options.rounds)
    changes = (("steps", options.steps),) if options.steps else ()
    place = Place(str(options.folder), options.checkpoint, class_pictures=tier.class_pictures, changes=changes)
    place = replace(place, card=not options.cpu)
    if options.checkpoint:
        place = replace(
            place, photos=options.photos, clip=options.clip, detector=options.detector, predictor=options.predictor,
            side=options.side,
        )  # fmt: skip
    try:
        reproduce(place, options, tier)
    except UserError as error:
        raise SystemExit(str(error)) from error
    except BrokenProcessPool as error:
        raise SystemExit("A worker died; start the same command again to go on.") from error


def reproduce(place: Place, options: argparse.Namespace, tier) -> None:
    folder = options.folder
    # Rounds may be added later on; everything else decides what the rows are.
    settings = {"tier": {**asdict(tier), "rounds": None}, "world": {**asdict(place), "folder": ""}}
    # A reproduction may go on elsewhere, though its roundings are others there.
    del settings["world"]["card"]
    store = Store(folder, settings)
    world = place.open()
    things = [(thing.name, thing.noun) for thing in world.things.values()]
    keep_photos(world, folder)
    with workers(place, options.workers, options.ray, log.info) as hand:
        rows = run(tier, things, world.nouns, store, hand, log.info)
    blocks = [b for number in range(tier.rounds) for stage in stages(tier, number, things, world.nouns) for b in stage]
    done = [block for block in blocks if store.is_done(block)]
    table = store.write_table(rows)
    with replacing(folder / "table-1.json") as temporary:
        temporary.write_text(json.dumps(as_json(rows), indent=1) + "\n")
    text = [f"## Table 1 ({options.tier})", table_one(rows)]
    text += [f"## {method}, {half}\n\n{ablation(rows, method, half)}" for half in (NOUN, OWN) for method in METHODS]
    with replacing(folder / "tables.md") as temporary:
        temporary.write_text("\n\n".join(text) + "\n")
    figures = write_figures(world, done, folder)
    page = write_rating_page(done, folder)
    print("\n\n".join(text))
    print("\n".join(["", f"rows:    {table}", *(f"figure:  {figure}" for figure in figures), f"rating:  {page}"]))


def keep_photos(world: World, folder: Path) -> None:
    """A photo of each thing, for the rating page."""
    for thing in world.things.values():
        file = folder / "photos" / f"{thing.name}.png"
        if not file.exists():
            with replacing(file) as temporary:
                Image.fromarray(pixels(thing.photos[0])).save(temporary, "PNG")


if __name__ == "__main__":
    main()
