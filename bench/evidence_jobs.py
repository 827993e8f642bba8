"""The experiments of ``bench.evidence``: which pictures are painted, and how."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from miniworld.laboratory.recipe import INVERSION, MASKED, TUNING
from miniworld.world.drawing import NOUNS
from miniworld.world.instances import CHOOSING, INSTANCES, REPORTING

TEXTUAL_INVERSION = "textual inversion"
INVERSION_SEEDS = {TEXTUAL_INVERSION: (0, 1, 2), "Custom Diffusion": (0, 1), "DreamBooth": (0, 1)}
CHOOSING_SEEDS = {TEXTUAL_INVERSION: (10, 11), "Custom Diffusion": (10,), "DreamBooth": (10,)}
"""Parameters are chosen on other seeds, of training and of pictures, than those reported."""
LEARNING_RATES = (0.003, 0.01)
NUM_VECTORS = (1, 3)
ANCHOR_WEIGHTS = (0.0, 0.03, 0.1, 0.3)
"""For ``anchor_reduction`` sum, which `recipe.INVERSION` has."""
PAPER = {"anchor_weight": 0.95, "anchor_reduction": "seq_mean"}
PHOTOS = "more photos of it, through the autoencoder"
CHOOSING_OTHERS = ("boat", "star", "tree", "key", "bird", "mushroom")
NO_BOXES, DRAWN, PREDICTED = "", "drawn", "predicted"


@dataclass(frozen=True)
class Job:
    """Some pictures of one own thing beside something else.

    ``settings`` holds what differs from the recipe of the method; None is the pretrained noun in place of the own
    thing. ``other`` is a noun, or another own thing, or empty for the thing alone. ``boxes`` says where guidance takes
    its boxes from, if anywhere.
    """

    experiment: str
    cell: str
    method: str
    instance: str
    other: str
    settings: dict[str, Any] | None
    masked: bool
    boxes: str
    seed: int
    count: int

    @property
    def key(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def two_own(self) -> bool:
        """Whether the other is an own thing, too."""
        return self.other in INSTANCES


def concept_name(job: Job, instance: str = "") -> str:
    """A name for what a job learns (of another instance, if given) that says what it is and how it is learned."""
    short = {"anchor_weight": "w", "anchor_reduction": "", "learning_rate": "lr", "num_vectors": "v", "seed": "s"}
    parts = [f"{short[key]}{value}" for key, value in sorted((job.settings or {}).items())]
    initials = "".join(word[0] for word in re.findall("[A-Z]?[a-z]+", job.method))
    masked = "masked" if job.masked else "whole"
    return "-".join([initials, instance or job.instance, *parts, masked]).replace(".", "_")


def others(noun: str) -> list[str]:
    return [name for name in NOUNS if name != noun]


def scale_jobs() -> Iterator[Job]:
    """What likeness means here: the photos through the autoencoder, and the pretrained noun."""
    for instance in REPORTING:
        for cell in (PHOTOS, "pretrained noun alone"):
            yield Job("scale", cell, TEXTUAL_INVERSION, instance.name, "", None, MASKED, NO_BOXES, 90, 18)


def choosing_jobs(
    experiment: str, cell: str, settings: dict[str, Any], masked: bool, method: str = TEXTUAL_INVERSION
) -> Iterator[Job]:
    """The own things that are for choosing, alone and beside some other nouns."""
    for inversion_seed in CHOOSING_SEEDS[method]:
        learned = settings | {"seed": inversion_seed}
        for instance in CHOOSING:
            seeds = range(1000 * inversion_seed, 1000 * (inversion_seed + 1), 10)
            yield Job(experiment, f"{cell}, alone", method, instance.name, "", learned, masked, NO_BOXES, seeds[90], 4)
            for seed, other in zip(seeds, CHOOSING_OTHERS, strict=False):
                yield Job(experiment, cell, method, instance.name, other, learned, masked, NO_BOXES, seed, 2)


def choose_jobs() -> Iterator[Job]:
    """Learning rate and number of vectors of plain textual inversion."""
    for vectors in NUM_VECTORS:
        for rate in LEARNING_RATES:
            settings = {"anchor_weight": 0.0, "learning_rate": rate, "num_vectors": vectors}
            yield from choosing_jobs("choose", f"rate {rate:g}, {vectors} vectors", settings, MASKED)


def sweep_jobs() -> Iterator[Job]:
    """Anchor weight, with and without masks; and the paper's."""
    yield from choosing_jobs("sweep", "the paper's λ 0.95 seq_mean, masked", PAPER, True)
    for masked in (True, False):
        for weight in ANCHOR_WEIGHTS:
            cell = f"λ {weight:g}, {'masked' if masked else 'whole photos'}"
            yield from choosing_jobs("sweep", cell, {"anchor_weight": weight}, masked)


def tuning_sweep_jobs(method: str) -> Iterator[Job]:
    """Anchor weight of a method that trains the model, too."""
    for weight in ANCHOR_WEIGHTS:
        yield from choosing_jobs(f"{method}, sweep", f"λ {weight:g}", {"anchor_weight": weight}, MASKED, method)


def semantic_weight(method: str) -> float:
    return (INVERSION if method == TEXTUAL_INVERSION else TUNING[method])["anchor_weight"]


def cells(method: str) -> tuple[tuple[str, float, str], ...]:
    """Name, anchor weight and boxes of the four cells of a method."""
    semantic = semantic_weight(method)
    return (
        (method, 0.0, NO_BOXES),
        ("+ semantic", semantic, NO_BOXES),
        ("+ spatial", 0.0, DRAWN),
        ("+ both", semantic, DRAWN),
    )


def method_jobs(method: str) -> Iterator[Job]:
    """The four cells of a method, beside every other noun; once also the same with pretrained nouns."""
    for inversion_seed in INVERSION_SEEDS[method]:
        for instance in REPORTING:
            for i, other in enumerate(others(instance.noun)):
                seed = 1000 * inversion_seed + 10 * i
                # At least a hundred pictures a cell, whatever the number of learned words.
                count = -(-100 // (len(REPORTING) * (len(NOUNS) - 1) * len(INVERSION_SEEDS[method])))
                if method == TEXTUAL_INVERSION:
                    common = (MASKED, NO_BOXES, seed, count)
                    yield Job(method, "pretrained pair", method, instance.name, other, None, *common)
                for cell, weight, boxes in cells(method):
                    settings = {"anchor_weight": weight, "seed": inversion_seed}
                    yield Job(method, cell, method, instance.name, other, settings, MASKED, boxes, seed, count)


def alone_jobs() -> Iterator[Job]:
    """The words of textual inversion by themselves: whether the thing is learned at all."""
    for job in method_jobs(TEXTUAL_INVERSION):
        if job.settings and not job.boxes and job.other == others(INSTANCES[job.instance].noun)[0]:
            changes = {"experiment": "alone", "cell": f"{job.cell}, alone", "other": "", "count": 6}
            yield Job(**{**asdict(job), **changes})


def predicted_jobs() -> Iterator[Job]:
    """The cells of textual inversion that have boxes, with predicted ones in the place of drawn ones."""
    for job in method_jobs(TEXTUAL_INVERSION):
        if job.boxes == DRAWN:
            yield Job(**{**asdict(job), "experiment": "predicted", "boxes": PREDICTED})


def two_own_jobs(method: str) -> Iterator[Job]:
    """Two own things in one picture."""
    for inversion_seed in INVERSION_SEEDS[method]:
        pairs = list(combinations(REPORTING, 2))
        count = -(-100 // (len(pairs) * len(INVERSION_SEEDS[method])))
        for i, (one, two) in enumerate(pairs):
            seed = 1000 * inversion_seed + 50 * i
            for cell, weight, boxes in cells(method):
                settings = {"anchor_weight": weight, "seed": inversion_seed}
                yield Job(
                    f"{method}, two own things", cell, method, one.name, two.name, settings, MASKED, boxes, seed, count
                )


EXPERIMENTS = {
    "scale": scale_jobs,
    "choose": choose_jobs,
    "sweep": sweep_jobs,
    **{f"{method}, sweep": lambda method=method: tuning_sweep_jobs(method) for method in TUNING},
    "alone": alone_jobs,
    "predicted": predicted_jobs,
    **{method: lambda method=method: method_jobs(method) for method in INVERSION_SEEDS},
    **{f"{method}, two own things": lambda method=method: two_own_jobs(method) for method in INVERSION_SEEDS},
}


def part_of(jobs: Iterable[Job], part: int, parts: int) -> list[Job]:
    """Every ``parts``-th learned word with all its pictures, so that processes side by side never learn one twice."""
    words: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        words[f"{concept_name(job)} {job.other if job.two_own else ''}"].append(job)
    return [job for group in list(words.values())[part - 1 :: parts] for job in group]
