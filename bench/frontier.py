"""Identity against composition for every way of holding a word: ``python -m bench.frontier``.

On the miniature world's own things for choosing. Each variant of a method learns the word of each thing and paints it
beside other nouns; the table has, for each, how often all is there and how alike the thing is to its photos. A killed
run goes on.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compinv_core.basics.errors import UserError

from .reproduce.protocol import METHODS, Block
from .reproduce.run import workers
from .reproduce.store import Row, Store
from .reproduce.tables import shown
from .reproduce.worlds import Place

log = logging.getLogger("compinv.frontier")
PLAIN = "plain"
RADII, ANGLES, WEIGHTS = (0.3, 0.5, 0.7, 1.0), (20.0, 40.0, 60.0), (0.03, 0.1, 0.3)
SEEDS = 10
"""Seeds of the words begin here, away from those that are reported."""
COLUMNS = ("all_there", "own", "composed", "duplicates", "identified", "object_alignment", "attention_ratio")


@dataclass(frozen=True)
class Tier:
    """How much is done: things, nouns beside each, pictures a prompt, share of the training, seeds."""

    things: int
    nouns: int
    pictures: int
    training: float
    seeds: int


TIERS = {
    "smoke": Tier(things=1, nouns=2, pictures=2, training=0.2, seeds=1),
    "lite": Tier(things=3, nouns=4, pictures=2, training=1.0, seeds=1),
    "full": Tier(things=6, nouns=8, pictures=4, training=1.0, seeds=3),
}


def variants() -> dict[str, dict[str, Any]]:
    """Every way of holding a word, by name, with its settings; without anchors where `anchor_weight` is 0."""
    found: dict[str, dict[str, Any]] = {PLAIN: {"anchor_weight": 0.0}}
    found |= {f"anchor loss {weight:g}": {"anchor_weight": weight} for weight in WEIGHTS}
    found |= {f"radius {radius:g}": {"hold": "radius", "radius": radius} for radius in RADII}
    found |= {f"direction {angle:g}": {"hold": "direction", "angle": angle} for angle in ANGLES}
    return found


def blocks(
    tier: Tier, methods: tuple[str, ...], things: list[tuple[str, str]], nouns: tuple[str, ...]
) -> Iterator[Block]:
    """All blocks, thing after thing, so that an early end has all variants of the first ones."""
    for seed in range(SEEDS, SEEDS + tier.seeds):
        for name, noun in things[: tier.things]:
            others = tuple(each for each in nouns if each != noun)[: tier.nouns]
            for method in methods:
                for variant, settings in variants().items():
                    yield Block(
                        0, method, variant != PLAIN, False, (name,), others, seed, tier.pictures, True, tier.training,
                        variant, tuple(settings.items()),
                    )  # fmt: skip


def table(rows: list[Row], method: str) -> str:
    """One line a variant, without guidance."""
    lines = ["| variant | n | " + " | ".join(COLUMNS).replace("_", " ") + " |", "|---" * (2 + len(COLUMNS)) + "|"]
    for variant in variants():
        chosen = [r for r in rows if (r["method"], r["variant"], r["spatial"]) == (method, variant, 0)]
        cells = " | ".join(shown(chosen, column) for column in COLUMNS)
        lines.append(f"| {variant} | {len(chosen)} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", choices=TIERS, default="smoke")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--folder", type=Path, default=Path("bench-output/frontier"))
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    tier, place = TIERS[options.tier], Place(str(options.folder), choosing=True)
    try:
        store = Store(options.folder, {"tier": asdict(tier)})
    except UserError as error:
        raise SystemExit(str(error)) from error
    world = place.open()
    things = [(thing.name, thing.noun) for thing in world.things.values()]
    wanted = list(blocks(tier, tuple(options.methods), things, world.nouns))
    missing = [block for block in wanted if not store.is_done(block)]
    with workers(place, options.workers, False, log.info) as hand:
        for number, (block, rows) in enumerate(hand(missing), 1):
            store.keep(block, rows)
            log.info("%s: done, %d of %d", block.key, number, len(missing))
    rows = store.rows(wanted)
    store.write_table(rows)
    for method in options.methods:
        print(f"\n### {method}\n\n{table(rows, method)}")


if __name__ == "__main__":
    main()
