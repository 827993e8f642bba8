"""How well the composition score foretells what is painted: ``python -m bench.composition``.

On the miniature world's own things for choosing. Trainings are stopped on the way, the word of each stop is painted
beside other nouns, and the judge says whether all is there. The tables have the rank correlation of that with the
composition score, the loss and the norm over all stops, and what is there at the step that would be kept: by the score,
by the stop rule of DVAR (Voronov et al. 2023), or the last. A killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, pvariance
from typing import Any

import torch

from compinv_core.basics.atomic_file import replacing
from compinv_core.training.watch import SCORE, STEADY, Measurement, Watch
from miniworld.laboratory.recipe import ANCHOR_LOSS

from .reproduce.protocol import METHODS, PROMPT
from .reproduce.worlds import Place, World

log = logging.getLogger("compinv.composition")
STOPS = (0.05, 0.1, 0.2, 0.35, 0.6, 1.0)
"""Shares of the training after which is painted."""
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"anchor_weight": 0.0},
    "anchor loss": dict(ANCHOR_LOSS),
    "radius": {"hold": "radius", "radius": 0.7},
}
PREDICTORS = ("composition", "loss", "steady_loss", "norm")
DVAR_WINDOW, DVAR_SHARE = 0.2, 0.15
"""Of the steps so far, and the share of the whole variance below which the rule stops."""
SEED = 20
Row = dict[str, Any]


@dataclass(frozen=True)
class Tier:
    """How much is done: things, nouns beside each, pictures a prompt, share of the training."""

    things: int
    nouns: int
    pictures: int
    training: float


TIERS = {
    "smoke": Tier(things=1, nouns=2, pictures=2, training=0.2),
    "lite": Tier(things=2, nouns=4, pictures=2, training=1.0),
    "full": Tier(things=6, nouns=8, pictures=4, training=1.0),
}


def stops_of(world: World, method: str, way: str, thing: str, tier: Tier) -> list[Row]:
    """Learn one thing one way, and judge it at each stop."""
    from compinv_core.learning.settings import InversionConfig
    from compinv_core.learning.tuning_settings import CustomDiffusionConfig, DreamBoothConfig

    kind = {kind.method.name: kind for kind in (InversionConfig, CustomDiffusionConfig, DreamBoothConfig)}[method]
    settings = {**world.training[method], **WAYS[way], "seed": SEED}
    own, rows = world.things[thing], []
    steps = max(len(STOPS), round(settings.pop("steps") * tier.training))
    others = [noun for noun in world.nouns if noun != own.noun][: tier.nouns]
    name = f"stops-{METHODS.index(method)}-{way.replace(' ', '-')}-{thing}"
    stages = sorted({max(1, round(share * steps)) for share in STOPS})
    for step, result in zip(stages, world.bench.in_stages(kind, own, name, stages, **settings), strict=True):
        judged = []
        for number, other in enumerate(others):
            prompt = PROMPT.format(f"embedding:{name} {own.noun}", other)
            pictures = world.bench.paint(prompt, SEED + number, tier.pictures, model=result.model)
            judged += world.measure(pictures, own, other, PROMPT.format(own.noun, other))
        history, vectors = result.history, result.concepts[0].vectors
        rows.append(
            {
                "method": method, "way": way, "thing": thing, "step": step, "steps": steps,
                "composition": history[SCORE][-1], "loss": mean(history["loss"][-20:]),
                "steady_loss": history[STEADY][-1], "first": history[STEADY][0],
                "curve": [round(loss, 6) for loss in history[STEADY]], "norm": float(vectors.norm(dim=1).mean()),
                **{key: mean(row[key] for row in judged) for key in ("all_there", "own", "composed", "duplicates")},
            }
        )  # fmt: skip
    return rows


def correlation(rows: Sequence[Row], predictor: str) -> float:
    """Spearman's rank correlation of a predictor with what is there, over all stops."""
    from scipy.stats import spearmanr

    return float(spearmanr([row[predictor] for row in rows], [row["all_there"] for row in rows]).statistic)


def kept_by_score(run: Sequence[Row]) -> Row:
    """The stop that ``keep`` = best composition takes."""
    watch = Watch(lambda: (0.0, 0.0), 1)
    stops = [Measurement(row["step"], row["composition"], row["steady_loss"]) for row in run]
    watch.restore([Measurement(0, 1.0, run[0]["first"]), *stops])
    return next((row for row in run if watch.kept and row["step"] == watch.kept.step), run[-1])


def kept_by_dvar(run: Sequence[Row]) -> Row:
    """The first stop by which the loss on fixed noise varies little any more."""
    curve = run[-1]["curve"]
    for row in run:
        seen = curve[: row["step"]]
        window = seen[-max(2, round(DVAR_WINDOW * len(curve))) :]
        if len(window) < len(seen) and pvariance(window) < DVAR_SHARE * pvariance(seen):
            return row
    return run[-1]


RULES: dict[str, Callable[[Sequence[Row]], Row]] = {
    "the best stop, in hindsight": lambda run: max(run, key=lambda row: row["all_there"]),
    "best composition": kept_by_score,
    "DVAR": kept_by_dvar,
    "last": lambda run: run[-1],
}


def report(runs: Sequence[Sequence[Row]]) -> str:
    """Both tables as Markdown."""
    rows = [row for run in runs for row in run]
    lines = [f"Rank correlation with “all there” over {len(rows)} stops of {len(runs)} trainings:\n"]
    lines += ["| predictor | Spearman |", "|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {correlation(rows, name):+.2f} |" for name in PREDICTORS]
    lines += ["\n| kept step | all there | own | share of the steps |", "|---|---|---|---|"]
    for name, rule in RULES.items():
        kept = [rule(run) for run in runs]
        all_there, own = (mean(row[key] for row in kept) for key in ("all_there", "own"))
        lines.append(f"| {name} | {all_there:.2f} | {own:.2f} | {mean(r['step'] / r['steps'] for r in kept):.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", choices=TIERS, default="smoke")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--folder", type=Path, default=Path("bench-output/composition"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(options.threads)
    tier = TIERS[options.tier]
    folder = options.folder / "-".join(str(value) for value in asdict(tier).values())
    folder.mkdir(parents=True, exist_ok=True)
    world, runs = Place(str(options.folder), choosing=True).open(), []
    for thing in list(world.things)[: tier.things]:
        for method in options.methods:
            for way in WAYS:
                file = folder / f"{thing}_{method}_{way}.json".replace(" ", "-")
                if not file.exists():
                    rows = stops_of(world, method, way, thing, tier)
                    with replacing(file) as temporary:
                        temporary.write_text(json.dumps(rows) + "\n")
                    log.info("%s: %s", file.stem, [round(row["all_there"], 2) for row in rows])
                runs.append(json.loads(file.read_text()))
    print(report(runs))


if __name__ == "__main__":
    main()
