"""Measure the method on the miniature world: ``python -m bench.evidence``.

Three experiments, each a list of independent jobs whose rows are appended to ``<folder>/<experiment>.jsonl``; a job
that is there is not done again, so an interrupted run continues:

- ``sweep``: anchor weight with and without masks, on the instances that are for choosing parameters;
- ``ablation``: pretrained pair, textual inversion, + semantic, + spatial, + both, on the instances for reporting;
- ``single``: the own thing alone, to see whether the inversion reproduces it at all.

``--report`` prints the tables of what is there as Markdown. ``--tier smoke`` does one job of each kind.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from miniworld.drawing import NOUNS
from miniworld.instances import CHOOSING, INSTANCES, REPORTING
from miniworld.judging import Judgement, drawn_boxes, judge_pair, summary
from miniworld.laboratory import Laboratory
from miniworld.recipe import GUIDANCE, INVERSION

log = logging.getLogger("compinv.evidence")
INVERSION_SEEDS = (0, 1, 2)
SWEEP_WEIGHTS = (0.0, 0.5, 0.8, 0.95, 0.99)
SWEEP_OTHERS = ("boat", "star", "tree", "key", "bird", "mushroom")


@dataclass(frozen=True)
class Job:
    """Some pictures of one own thing beside one other noun.

    ``inversion_seed`` is -1 for the pretrained noun in place of the own thing; an empty ``other`` is the thing alone.
    """

    experiment: str
    cell: str
    instance: str
    other: str
    weight: float
    masked: bool
    spatial: bool
    inversion_seed: int
    seed: int
    count: int

    @property
    def key(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def others(noun: str) -> list[str]:
    return [name for name in NOUNS if name != noun]


def ablation_jobs() -> Iterator[Job]:
    weight, masked = INVERSION["anchor_weight"], RECIPE_MASKED
    for inversion_seed in INVERSION_SEEDS:
        for instance in REPORTING:
            for i, other in enumerate(others(instance.noun)):
                seed = 1000 * inversion_seed + i
                cells = (
                    ("textual inversion", 0.0, False),
                    ("+ semantic", weight, False),
                    ("+ spatial", 0.0, True),
                    ("+ both", weight, True),
                )
                yield Job("ablation", "pretrained pair", instance.name, other, 0.0, masked, False, -1, seed, 1)
                for cell, cell_weight, spatial in cells:
                    yield Job(
                        "ablation", cell, instance.name, other, cell_weight, masked, spatial, inversion_seed, seed, 1
                    )


def sweep_jobs() -> Iterator[Job]:
    for masked in (True, False):
        for weight in SWEEP_WEIGHTS:
            for instance in CHOOSING:
                for i, other in enumerate(SWEEP_OTHERS):
                    cell = f"{weight} {'masked' if masked else 'unmasked'}"
                    yield Job("sweep", cell, instance.name, other, weight, masked, False, 0, 500 + i, 2)


def single_jobs() -> Iterator[Job]:
    for instance in CHOOSING + REPORTING:
        for cell, weight in (("textual inversion", 0.0), ("+ semantic", INVERSION["anchor_weight"])):
            yield Job("single", cell, instance.name, "", weight, RECIPE_MASKED, False, 0, 90, 4)


RECIPE_MASKED = True
EXPERIMENTS = {"single": single_jobs, "sweep": sweep_jobs, "ablation": ablation_jobs}


def perform(laboratory: Laboratory, job: Job, folder: Path) -> list[Judgement]:
    """Learn what is missing, paint, keep the pictures, judge."""
    instance = INSTANCES[job.instance]
    own = instance.noun
    if job.inversion_seed >= 0:
        settings = INVERSION | {"anchor_weight": job.weight, "seed": job.inversion_seed}
        name = f"{instance.name}-w{job.weight:g}-{'masked' if job.masked else 'whole'}-s{job.inversion_seed}".replace(
            ".", "_"
        )
        own = f"{laboratory.learn(instance, name, job.masked, **settings)} {instance.noun}"
    guided: dict[str, Any] = {}
    if job.spatial:
        guided = {"phrases": (own, job.other), "boxes": drawn_boxes(instance.noun, job.other), "guidance": GUIDANCE}
    prompt = f"a photo of a {own} and a {job.other}" if job.other else f"a photo of a {own}"
    pictures = laboratory.paint(prompt, job.seed, job.count, **guided)
    for i, picture in enumerate(pictures):
        file = (
            folder / "pictures" / job.experiment / f"{job.cell} {job.instance} {job.other} {job.inversion_seed} {i}.png"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.permute(1, 2, 0).mul(255).byte().numpy()).save(file)
    return judge_pair(pictures, instance, job.other or instance.noun)


def read_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def carry_out(laboratory: Laboratory, jobs: Iterable[Job], folder: Path) -> None:
    """Do the jobs that are not done yet, appending a line for each."""
    jobs = list(jobs)
    done = {row["key"] for name in EXPERIMENTS for row in read_rows(folder / f"{name}.jsonl")}
    for number, job in enumerate(jobs, 1):
        if job.key in done:
            continue
        file = folder / f"{job.experiment}.jsonl"
        began = time.monotonic()
        rows = perform(laboratory, job, folder)
        with file.open("a") as out:
            out.write(json.dumps({"key": job.key, "job": asdict(job), "rows": [asdict(row) for row in rows]}) + "\n")
        log.info(
            "%d/%d %s %s+%s: %.0f s",
            number,
            len(jobs),
            job.cell,
            job.instance,
            job.other or "nothing",
            time.monotonic() - began,
        )


def interval(values: list[float], draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over pictures."""
    sample = np.asarray(values, float)
    rng = np.random.default_rng(0)
    means = sample[rng.integers(len(sample), size=(draws, len(sample)))].mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def table(file: Path) -> str:
    """The cells of one experiment as a Markdown table."""
    cells: dict[str, list[Judgement]] = defaultdict(list)
    for entry in read_rows(file):
        cells[entry["job"]["cell"]] += [Judgement(**row) for row in entry["rows"]]
    lines = [
        "| cell | n | composed noun | own concept | both | text alignment | image alignment | object alignment (n) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell, rows in cells.items():
        s = summary(rows)
        found = [row.object_alignment for row in rows if row.object_alignment is not None]

        def shown(values: list[float]) -> str:
            if not values:
                return "–"
            low, high = interval(values)
            return f"{np.mean(values):.3f} [{low:.3f}, {high:.3f}]"

        lines.append(
            f"| {cell} | {s['n']} | {shown([r.other > 0.5 for r in rows])} | {shown([r.own > 0.5 for r in rows])} | "
            f"{shown([r.both for r in rows])} | {s['text_alignment']:.3f} | "
            f"{shown([r.image_alignment for r in rows])} | {shown(found)} ({len(found)}) |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="*", default=list(EXPERIMENTS), help=", ".join(EXPERIMENTS))
    parser.add_argument("--folder", type=Path, default=Path("bench-output/evidence"))
    parser.add_argument("--tier", choices=("smoke", "full"), default="full")
    parser.add_argument("--report", action="store_true", help="only print the tables of what is there")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not options.report:
        laboratory = Laboratory(folder / "comfyui")
        for name in options.experiments:
            jobs = list(EXPERIMENTS[name]())
            if options.tier == "smoke":
                jobs = list({job.cell: job for job in reversed(jobs)}.values())
            with torch.random.fork_rng(devices=[]):
                carry_out(laboratory, jobs, folder)
    for name in options.experiments:
        print(f"\n### {name}\n\n{table(folder / f'{name}.jsonl')}")


if __name__ == "__main__":
    main()
