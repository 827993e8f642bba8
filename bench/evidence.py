"""Measure the method on the miniature world: ``python -m bench.evidence``.

Four experiments, each a list of independent jobs whose rows are appended to ``<folder>/<experiment>.jsonl``; a job
that is there is not done again, so an interrupted run continues:

- ``scale``: what likeness means here: the photos through the autoencoder, and the pretrained noun;
- ``choose``: learning rate and number of vectors, on the instances that are for choosing parameters;
- ``sweep``: anchor weight with and without masks, on the same instances;
- ``ablation``: pretrained pair, textual inversion, + semantic, + spatial, + both, on the instances for reporting.

``--report`` prints the tables of what is there as Markdown. ``--tier smoke`` does one job of each kind.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from miniworld.drawing import NOUNS
from miniworld.instances import CHOOSING, INSTANCES, REPORTING, Instance, render_photo
from miniworld.judge import THRESHOLD
from miniworld.judging import Judgement, drawn_boxes, judge_pair
from miniworld.laboratory import Laboratory
from miniworld.recipe import GUIDANCE, INVERSION, MASKED

log = logging.getLogger("compinv.evidence")
INVERSION_SEEDS = (0, 1, 2)
LEARNING_RATES = (0.001, 0.003)
NUM_VECTORS = (1,)
ANCHOR_WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)
"""For ``anchor_reduction`` sum, which `recipe.INVERSION` has."""
PHOTOS = "more photos of it, through the autoencoder"
CHOOSING_OTHERS = ("boat", "star", "tree", "key", "bird", "mushroom")


@dataclass(frozen=True)
class Job:
    """Some pictures of one own thing beside one other noun.

    ``inversion`` holds what differs from `recipe.INVERSION`; None is the pretrained noun in place of the own thing.
    An empty ``other`` is the thing alone.
    """

    experiment: str
    cell: str
    instance: str
    other: str
    inversion: dict[str, Any] | None
    masked: bool
    spatial: bool
    seed: int
    count: int

    @property
    def key(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def others(noun: str) -> list[str]:
    return [name for name in NOUNS if name != noun]


def scale_jobs() -> Iterator[Job]:
    for instance in CHOOSING + REPORTING:
        yield Job("scale", PHOTOS, instance.name, "", None, MASKED, False, 90, 4)
        yield Job("scale", "pretrained noun alone", instance.name, "", None, MASKED, False, 90, 4)


def choosing_jobs(experiment: str, cell: str, inversion: dict[str, Any], masked: bool) -> Iterator[Job]:
    """The own things that are for choosing, alone and beside some other nouns."""
    for instance in CHOOSING:
        yield Job(experiment, f"{cell}, alone", instance.name, "", inversion, masked, False, 90, 4)
        for i, other in enumerate(CHOOSING_OTHERS):
            yield Job(experiment, cell, instance.name, other, inversion, masked, False, 500 + i, 2)


def choose_jobs() -> Iterator[Job]:
    for vectors in NUM_VECTORS:
        for rate in LEARNING_RATES:
            inversion = {"anchor_weight": 0.0, "learning_rate": rate, "num_vectors": vectors}
            yield from choosing_jobs("choose", f"rate {rate:g}, {vectors} vectors", inversion, MASKED)


def sweep_jobs() -> Iterator[Job]:
    for masked in (True, False):
        for weight in ANCHOR_WEIGHTS:
            cell = f"λ {weight:g}, {'masked' if masked else 'whole photos'}"
            yield from choosing_jobs("sweep", cell, {"anchor_weight": weight}, masked)


def ablation_jobs() -> Iterator[Job]:
    semantic = INVERSION["anchor_weight"]
    cells = (
        ("textual inversion", 0.0, False),
        ("+ semantic", semantic, False),
        ("+ spatial", 0.0, True),
        ("+ both", semantic, True),
    )
    for inversion_seed in INVERSION_SEEDS:
        for instance in REPORTING:
            for i, other in enumerate(others(instance.noun)):
                seed = 1000 * inversion_seed + i
                yield Job("ablation", "pretrained pair", instance.name, other, None, MASKED, False, seed, 1)
                for cell, weight, spatial in cells:
                    inversion = {"anchor_weight": weight, "seed": inversion_seed}
                    yield Job("ablation", cell, instance.name, other, inversion, MASKED, spatial, seed, 1)


EXPERIMENTS = {"scale": scale_jobs, "choose": choose_jobs, "sweep": sweep_jobs, "ablation": ablation_jobs}


def concept_name(job: Job) -> str:
    """A name for the embedding that says what was learned and how."""
    parts = [f"{key.replace('_', '')}{value:g}" for key, value in sorted((job.inversion or {}).items())]
    return "-".join([job.instance, *parts, "masked" if job.masked else "whole"]).replace(".", "_")


def new_photos(laboratory: Laboratory, instance: Instance, seed: int, count: int) -> torch.Tensor:
    """Photos that nothing was learned from, as the autoencoder shows them, (count, 3, SIDE, SIDE) in [0, 1]."""
    rng = np.random.default_rng(seed)
    pictures = np.stack([render_photo(instance, rng)[0] for _ in range(count)])
    return laboratory.restored(torch.from_numpy(pictures).float().div(255))


def perform(laboratory: Laboratory, job: Job, folder: Path) -> list[Judgement]:
    """Learn what is missing, paint, keep the pictures, judge."""
    instance = INSTANCES[job.instance]
    own = instance.noun
    if job.inversion is not None:
        word = laboratory.learn(instance, concept_name(job), job.masked, **(INVERSION | job.inversion))
        own = f"{word} {instance.noun}"
    guided: dict[str, Any] = {}
    if job.spatial:
        guided = {"phrases": (own, job.other), "boxes": drawn_boxes(instance.noun, job.other), "guidance": GUIDANCE}
    prompt = f"a photo of a {own} and a {job.other}" if job.other else f"a photo of a {own}"
    if job.cell == PHOTOS:
        pictures = new_photos(laboratory, instance, job.seed, job.count)
    else:
        pictures = laboratory.paint(prompt, job.seed, job.count, **guided)
    kept = folder / "pictures" / job.experiment / job.cell
    kept.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pictures):
        file = kept / f"{job.instance} {job.other or 'alone'} {job.seed + i}.png"
        Image.fromarray(picture.permute(1, 2, 0).mul(255).byte().numpy()).save(file)
    return judge_pair(pictures, instance, job.other or None)


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


def part_of(jobs: Iterable[Job], part: int, parts: int) -> list[Job]:
    """Every ``parts``-th learned word with all its pictures, so that processes side by side never learn one twice."""
    words: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        words[concept_name(job)].append(job)
    return [job for group in list(words.values())[part - 1 :: parts] for job in group]


def interval(clusters: list[list[float]], draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean; pictures of one learned word are drawn together, since they are alike."""
    rng = np.random.default_rng(0)
    sums = np.array([sum(cluster) for cluster in clusters])
    sizes = np.array([len(cluster) for cluster in clusters])
    drawn = rng.integers(len(clusters), size=(draws, len(clusters)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


Value = Callable[[Judgement], float | None]
COLUMNS: dict[str, Value] = {
    "composed noun": lambda row: None if row.other is None else float(row.other > THRESHOLD),
    "own concept": lambda row: float(row.own > THRESHOLD),
    "all there": lambda row: float(row.both),
    "image alignment": lambda row: row.image_alignment,
    "object alignment": lambda row: row.object_alignment,
}


def measured(clusters: Collection[list[Judgement]], value: Value) -> str:
    """Mean and interval of one column, with its n where some pictures do not count; a dash where none does."""
    kept = [[v for v in map(value, rows) if v is not None] for rows in clusters]
    total = sum(map(len, kept))
    if not total:
        return "–"
    low, high = interval([values for values in kept if values])
    text = f"{sum(map(sum, kept)) / total:.3f} [{low:.3f}, {high:.3f}]"
    return text if total == sum(map(len, clusters)) else f"{text} ({total})"


def table(file: Path) -> str:
    """The cells of one experiment as a Markdown table."""
    cells: dict[str, dict[tuple[str, str], list[Judgement]]] = defaultdict(lambda: defaultdict(list))
    for entry in read_rows(file):
        job = entry["job"]
        # Pictures of a pretrained noun depend on nothing in common.
        word = (job["instance"], json.dumps(job["inversion"] or [job["other"], job["seed"]]))
        cells[job["cell"]][word] += [Judgement(**row) for row in entry["rows"]]
    lines = [f"| cell | n | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for cell, words in cells.items():
        clusters = list(words.values())
        columns = " | ".join(measured(clusters, value) for value in COLUMNS.values())
        lines.append(f"| {cell} | {sum(map(len, clusters))} | {columns} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="*", default=list(EXPERIMENTS), help=", ".join(EXPERIMENTS))
    parser.add_argument("--folder", type=Path, default=Path("bench-output/evidence"))
    parser.add_argument("--tier", choices=("smoke", "full"), default="full")
    parser.add_argument("--part", default="1/1", help="K/N does the K-th of N parts, for N processes side by side")
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
                carry_out(laboratory, part_of(jobs, *map(int, options.part.split("/"))), folder)
    for name in options.experiments:
        print(f"\n### {name}\n\n{table(folder / f'{name}.jsonl')}")


if __name__ == "__main__":
    main()
