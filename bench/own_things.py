"""Whether own things are recognised, and which words dominate: ``python -m bench.own_things``.

Each own thing of the miniature world is learned by plain textual inversion, with masks and from whole photos, and
painted alone and beside another noun. Printed are how often the judge picks it among all twelve, and the attention that
a phrase takes over the other: of ordinary nouns, and of the learned words. ``own-things.png`` shows a photo of each,
then pictures alone, then beside the other. A killed run goes on with the words that are learned.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from compinv_core.measures.attention import attention_shares, dominance
from miniworld.laboratory.contact_sheet import Panel, pixels, stacked
from miniworld.laboratory.judging import judged_rows
from miniworld.laboratory.models import Laboratory, as_thing
from miniworld.laboratory.recipe import INVERSION
from miniworld.world.instances import INSTANCES, Instance

from .reproduce.protocol import PROMPT

log = logging.getLogger("compinv.own_things")
TIERS = {"smoke": (2, 2), "lite": (12, 3), "full": (12, 12)}
"""Things and pictures of each."""
WAYS = {"masked": True, "whole photos": False}
COLUMNS = 8
SEED = 70


def beside(thing: Instance) -> str:
    """What a thing is painted with."""
    return "tree" if thing.noun == "boat" else "boat"


def ratio(laboratory: Laboratory, phrases: tuple[str, str]) -> float:
    """Attention of the first phrase over that of the second while both are painted."""
    shares = attention_shares(laboratory.recorded(PROMPT.format(*phrases), phrases, SEED))
    return float(dominance(shares, 0, 1)[0])


def learned(laboratory: Laboratory, thing: Instance, way: str) -> str:
    """The phrase of a thing learned without anchors."""
    settings = INVERSION | {"anchor_weight": 0.0, "seed": SEED}
    name = f"{thing.name}-{way.split()[0]}"
    return laboratory.learn(as_thing(thing), name, WAYS[way], with_class=True, **settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", choices=TIERS, default="smoke")
    parser.add_argument("--folder", type=Path, default=Path("bench-output/own-things"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(options.threads)
    count, pictures = TIERS[options.tier]
    laboratory = Laboratory(options.folder / "comfyui")
    rows: dict[str, dict[str, list[Any]]] = {way: {"alone": [], "beside": [], "ratio": []} for way in WAYS}
    plain, panels = [], []
    for thing in list(INSTANCES.values())[:count]:
        other = beside(thing)
        plain.append(ratio(laboratory, (thing.noun, other)))
        for way, found in rows.items():
            phrase = learned(laboratory, thing, way)
            alone = laboratory.paint(f"a photo of a {phrase}", SEED, pictures)
            both = laboratory.paint(PROMPT.format(phrase, other), SEED, pictures)
            found["alone"] += judged_rows(alone, thing.name, None)
            found["beside"] += judged_rows(both, thing.name, other)
            found["ratio"].append(ratio(laboratory, (phrase, other)))
            photo = as_thing(thing).photos[0]
            shown = [pixels(each) for each in (photo, *alone[:3].movedim(1, -1), *both[:3].movedim(1, -1))]
            panels.append(Panel(f"{thing.name}, {way}", "", shown))
            log.info("%s, %s: done", thing.name, way)
    stacked(panels, COLUMNS).save(options.folder / "own-things.png")
    print(f"attention of an ordinary noun over the other: {mean(plain):.2f} ({min(plain):.2f}–{max(plain):.2f})")
    print("| learned from | n | identified alone | all there | identified beside | attention over the other |")
    print("|---|---|---|---|---|---|")
    for way, found in rows.items():
        shares = [mean(row["identified"] for row in found["alone"])]
        shares += [mean(row[key] for row in found["beside"]) for key in ("all_there", "identified")]
        ratios = found["ratio"]
        numbers = " | ".join(f"{share:.2f}" for share in shares)
        spread = f"{mean(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        print(f"| {way} | {len(found['alone'])} | {numbers} | {spread} |")


if __name__ == "__main__":
    main()
