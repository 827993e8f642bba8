"""Measure the method on the miniature world: ``python -m bench.evidence [experiment ...]``.

Each experiment of ``evidence_jobs`` is a list of independent jobs whose rows are appended to
``<folder>/<experiment>.jsonl``; a job that is there is not done again, so an interrupted run continues:

- ``scale``: what likeness means here: the photos through the autoencoder, and the pretrained noun;
- ``choose``: learning rate and number of vectors, on the instances that are for choosing parameters;
- ``sweep``: anchor weight with and without masks, on the same instances; ``Custom Diffusion, sweep`` and ``DreamBooth,
  sweep``: anchor weight of those methods;
- ``textual inversion``, ``Custom Diffusion``, ``DreamBooth``: pretrained pair, the plain method, + semantic,
  + spatial, + both, beside every other noun, on the instances for reporting;
- ``alone``: the words of textual inversion by themselves;
- ``predicted``: textual inversion with predicted in the place of drawn boxes;
- ``textual inversion, two own things`` and so on: two own things in one picture.

``--report`` prints the tables of what is there as Markdown. ``--tier smoke`` does one job of each kind.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from miniworld.laboratory.judging import Judgement, drawn_boxes, judge_pair, judge_two
from miniworld.laboratory.models import Laboratory, as_thing
from miniworld.laboratory.recipe import GUIDANCE, INVERSION, TUNING
from miniworld.world.instances import INSTANCES, Instance, render_photo

from .evidence_jobs import DRAWN, EXPERIMENTS, PHOTOS, TEXTUAL_INVERSION, Job, concept_name, part_of
from .evidence_tables import paired_differences, read_rows, table

log = logging.getLogger("compinv.evidence")


def new_photos(laboratory: Laboratory, instance: Instance, seed: int, count: int) -> torch.Tensor:
    """Photos that nothing was learned from, as the autoencoder shows them, (count, 3, SIDE, SIDE) in [0, 1]."""
    rng = np.random.default_rng(seed)
    pictures = np.stack([render_photo(instance, rng)[0] for _ in range(count)])
    return laboratory.restored(torch.from_numpy(pictures).float().div(255))


def learned(laboratory: Laboratory, job: Job) -> tuple[Any, tuple[str, ...]]:
    """Learn what is missing; return the model (None for the miniature one) and the phrases of the own things."""
    things = [as_thing(INSTANCES[name]) for name in (job.instance, job.other) if name in INSTANCES]
    if job.settings is None:
        return None, tuple(thing.noun for thing in things)
    names = [concept_name(job, thing.name) for thing in things]
    if job.method == TEXTUAL_INVERSION:
        settings = INVERSION | job.settings
        pairs = zip(things, names, strict=True)
        return None, tuple(laboratory.learn(thing, name, job.masked, **settings) for thing, name in pairs)
    settings = TUNING[job.method] | job.settings
    groups = {name: [thing] for name, thing in zip(names, things, strict=True)}
    # Differences of keys and values add up; whole networks do not, so DreamBooth learns two things together.
    if job.method == "DreamBooth" and job.two_own:
        groups = {f"{names[0]}-with-{job.other}": things}
        settings = settings | {"batch_size": len(things)}
    model, phrases = None, ()
    for name, group in groups.items():
        model, words = laboratory.tune(job.method, group, name, job.masked, onto=model, **settings)
        phrases += tuple(f"{word} {thing.noun}" for word, thing in zip(words, group, strict=True))
    return model, phrases


def perform(laboratory: Laboratory, job: Job, folder: Path) -> list[Judgement]:
    """Learn what is missing, paint, keep the pictures, judge."""
    instance = INSTANCES[job.instance]
    if job.cell == PHOTOS:
        pictures = new_photos(laboratory, instance, job.seed, job.count)
    else:
        model, phrases = learned(laboratory, job)
        nouns = [instance.noun, INSTANCES[job.other].noun if job.two_own else job.other]
        if job.other and not job.two_own:
            phrases += (job.other,)
        guided: dict[str, Any] = {}
        if job.boxes:
            boxes = drawn_boxes(*nouns) if job.boxes == DRAWN else laboratory.predicted_boxes(phrases)
            guided = {"phrases": phrases, "boxes": boxes, "guidance": GUIDANCE}
        prompt = "a photo of a " + " and a ".join(phrases)
        pictures = laboratory.paint(prompt, job.seed, job.count, model=model, **guided)
    keep(pictures, job, folder / "pictures" / job.experiment / job.cell)
    if job.two_own:
        return judge_two(pictures, instance, INSTANCES[job.other])
    return judge_pair(pictures, instance, job.other or None)


def keep(pictures: torch.Tensor, job: Job, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pictures):
        file = folder / f"{job.instance} {job.other or 'alone'} {job.seed + i}.png"
        Image.fromarray(picture.permute(1, 2, 0).mul(255).byte().numpy()).save(file)


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
        took = time.monotonic() - began
        log.info("%d/%d %s %s+%s: %.0f s", number, len(jobs), job.cell, job.instance, job.other or "nothing", took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="*", default=list(EXPERIMENTS), help=", ".join(EXPERIMENTS))
    parser.add_argument("--folder", type=Path, default=Path("bench-output/evidence"))
    parser.add_argument("--tier", choices=("smoke", "full"), default="full")
    parser.add_argument("--part", default="1/1", help="K/N does the K-th of N parts, for N processes side by side")
    parser.add_argument("--bfloat16", action="store_true", help="multiply in bfloat16 in the diffusion network")
    parser.add_argument("--report", action="store_true", help="only print the tables of what is there")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not options.report:
        laboratory = Laboratory(folder / "comfyui", options.bfloat16)
        for name in options.experiments:
            jobs = list(EXPERIMENTS[name]())
            if options.tier == "smoke":
                jobs = list({job.cell: job for job in reversed(jobs)}.values())
            with torch.random.fork_rng(devices=[]):
                carry_out(laboratory, part_of(jobs, *map(int, options.part.split("/"))), folder)
    for name in options.experiments:
        order = [job.cell for job in EXPERIMENTS[name]()]
        print(f"\n### {name}\n\n{table(folder / f'{name}.jsonl', order)}")
        if name == "predicted":
            differences = paired_differences(folder / f"{name}.jsonl", folder / f"{TEXTUAL_INVERSION}.jsonl")
            print(f"\nPredicted against drawn boxes, all there:\n{differences}")


if __name__ == "__main__":
    main()
