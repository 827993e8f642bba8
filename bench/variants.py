"""Ways of learning one word, side by side: what `bench.frontier` and `bench.comparison` have in common.

Each variant learns the word of each thing and paints it beside other nouns, with the same seeds and pictures. A killed
run goes on.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compinv_core.basics.errors import UserError

from .reproduce.protocol import Block
from .reproduce.run import workers
from .reproduce.store import Row, Store
from .reproduce.tables import shown
from .reproduce.worlds import Place

log = logging.getLogger("compinv.variants")
SEEDS = 10
"""Seeds of the words begin here, away from those of the reproduction."""


@dataclass(frozen=True)
class Variant:
    """A way of learning a word.

    Attributes
    ----------
    settings
        Of the training, where they differ from the world's.
    semantic, masked
        With anchors; with masks.
    repair
        Of `Workbench.adjust`: the plain word is repaired, and no other learned.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    semantic: bool = True
    masked: bool = False
    repair: dict[str, Any] = field(default_factory=dict)


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
    "lite": Tier(things=2, nouns=4, pictures=1, training=1.0, seeds=1),
    "full": Tier(things=6, nouns=8, pictures=4, training=1.0, seeds=3),
}


def blocks(
    tier: Tier,
    methods: Sequence[str],
    things: Sequence[tuple[str, str]],
    nouns: Sequence[str],
    variants: Mapping[str, Variant],
    guided: bool = True,
) -> Iterator[Block]:
    """All blocks, thing after thing, so that an early end has all variants of the first ones."""
    for seed in range(SEEDS, SEEDS + tier.seeds):
        for name, noun in things[: tier.things]:
            others = tuple(each for each in nouns if each != noun)[: tier.nouns]
            for method in methods:
                for title, variant in variants.items():
                    yield Block(
                        0, method, variant.semantic, variant.masked, (name,), others, seed, tier.pictures, True,
                        tier.training, title, tuple(variant.settings.items()), tuple(variant.repair.items()), guided,
                    )  # fmt: skip


def table(rows: Sequence[Row], method: str, variants: Mapping[str, Variant], columns: Sequence[str]) -> str:
    """One line a variant, without guidance."""
    lines = ["| variant | n | " + " | ".join(columns).replace("_", " ") + " |", "|---" * (2 + len(columns)) + "|"]
    for title in variants:
        chosen = [r for r in rows if (r["method"], r["variant"], r["spatial"]) == (method, title, 0)]
        cells = " | ".join(shown(chosen, column) for column in columns)
        lines.append(f"| {title} | {len(chosen)} | {cells} |")
    return "\n".join(lines)


def arguments(description: str, folder: str) -> argparse.ArgumentParser:
    """Options that both commands have."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--tier", choices=TIERS, default="smoke")
    parser.add_argument("--folder", type=Path, default=Path("bench-output") / folder)
    parser.add_argument("--workers", type=int, default=1)
    return parser


def done(
    options: argparse.Namespace,
    methods: Sequence[str],
    variants: Mapping[str, Variant],
    choosing: bool,
    guided: bool = True,
) -> list[Row]:
    """Do what is missing of the tier; return all rows, and write them.

    Parameters
    ----------
    choosing
        On the own things for choosing, not on those that are reported.
    guided
        Also paint with guidance.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    tier, place = TIERS[options.tier], Place(str(options.folder), choosing=choosing)
    try:
        store = Store(options.folder, {"tier": asdict(tier), **({} if choosing else {"things": "reporting"})})
    except UserError as error:
        raise SystemExit(str(error)) from error
    world = place.open()
    things = [(thing.name, thing.noun) for thing in world.things.values()]
    wanted = list(blocks(tier, methods, things, world.nouns, variants, guided))
    missing = [block for block in wanted if not store.is_done(block)]
    finished = 0
    with workers(place, options.workers, False, log.info) as hand:
        # Words are repaired that others have learned by then.
        for stage in ([b for b in missing if not b.repair], [b for b in missing if b.repair]):
            for block, rows in hand(stage):
                store.keep(block, rows)
                finished += 1
                log.info("%s: done, %d of %d", block.key, finished, len(missing))
    rows = store.rows(wanted)
    store.write_table(rows)
    return rows
