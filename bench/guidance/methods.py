"""What each method of guidance, and each source of a layout, is worth and costs: ``python -m bench.guidance.methods``.

On the miniature world's own things that are reported, each learned by plain textual inversion from whole photos. The
same prompts, seeds and drawn boxes without guidance; by gradient, injection and hybrid; by the host's area and mask
conditioning, and attention couple. Then boxes from the model and from the predictor, by injection. With ``--choose``
other strengths of the bias instead, on the own things for choosing: where the default comes from. Seconds are the
processor's, of sampling and of making the layout, over those without guidance in the same run. A killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from compinv_core.basics.atomic_file import replacing
from miniworld.laboratory.judging import judged_rows, seen
from miniworld.laboratory.models import Laboratory
from miniworld.laboratory.recipe import GUIDANCE, PAINTING
from miniworld.world.drawing import NOUNS
from miniworld.world.instances import CHOOSING, REPORTING, Instance
from miniworld.world.placing import SIDE

from ..own_things import learned
from ..reproduce.protocol import PROMPT
from .regional import Box, coupled, with_areas, with_masks

log = logging.getLogger("compinv.methods")
TIERS = {"smoke": (1, 2, 2), "lite": (2, 4, 4), "full": (6, 8, 8)}
"""Things, nouns beside each, pictures of each prompt."""
DRAWN = (
    ((0.02, 0.25, 0.48, 0.85), (0.52, 0.25, 0.98, 0.85)),
    ((0.52, 0.25, 0.98, 0.85), (0.02, 0.25, 0.48, 0.85)),
    ((0.25, 0.02, 0.75, 0.48), (0.25, 0.52, 0.75, 0.98)),
    ((0.25, 0.52, 0.75, 0.98), (0.25, 0.02, 0.75, 0.48)),
)
UNGUIDED = "unguided"
SEED = 300
Row = dict[str, Any]
Way = Callable[[Laboratory, str, tuple[str, ...], tuple[Box, ...]], tuple[Any, list]]


def guided(source: str, **settings: Any) -> Way:
    """By Apply Layout Guidance, with boxes of a source."""

    def way(bench: Laboratory, prompt: str, phrases: tuple[str, ...], boxes: tuple[Box, ...]) -> tuple[Any, list]:
        if source == "predictor":
            boxes = bench.predicted_boxes(phrases)
        if source == "model":
            from compinv_core.host.layouts.from_model import LookConfig, layout_from_model

            look = LookConfig(width=SIDE, height=SIDE, seed=SEED, **PAINTING)
            boxes = layout_from_model(bench.model, bench.clip, prompt, phrases, look).boxes
        return bench.prompted(None, prompt, phrases, boxes, GUIDANCE | settings)

    return way


WAYS: dict[str, Way] = {
    UNGUIDED: lambda bench, prompt, phrases, boxes: (bench.model, bench.encode(prompt)),
    **{method: guided("drawn", method=method) for method in ("gradient", "injection", "hybrid")},
    "area conditioning": with_areas,
    "mask conditioning": with_masks,
    "attention couple": coupled,
    "injection, boxes from the model": guided("model", method="injection"),
    "injection, boxes from the predictor": guided("predictor", method="injection"),
}
STRENGTHS: dict[str, Way] = {
    **{name: WAYS[name] for name in (UNGUIDED, "gradient")},
    **{f"injection {strength:g}": guided("drawn", method="injection", injection_strength=strength)
       for strength in (0.3, 0.6, 1.0, 1.5, 2.5)},
    **{f"hybrid {strength:g}": guided("drawn", method="hybrid", injection_strength=strength)
       for strength in (0.3, 0.6, 1.0)},
}  # fmt: skip


def painted(
    bench: Laboratory, ways: dict[str, Way], thing: Instance, word: str, other: str, number: int, count: int
) -> list[Row]:
    """Rows of one prompt, every way."""
    phrases, boxes = (word, other), DRAWN[number % len(DRAWN)]
    prompt, rows = PROMPT.format(*phrases), []
    for name, way in ways.items():
        begun = time.process_time()
        with torch.inference_mode():
            model, positive = way(bench, prompt, phrases, boxes)
            samples = bench.sampled(model, positive, SEED, count, {})
            seconds = time.process_time() - begun
            pictures = bench.vae.decode(samples).movedim(-1, 1).clamp(0, 1).float().clone()
        for row, sight in zip(judged_rows(pictures, thing.name, other), seen(pictures), strict=True):
            there = zip((thing.noun, other), boxes, strict=True)
            placed = mean(_within(sight.boxes.get(noun), box) for noun, box in there)
            kept = {key: row[key] for key in ("all_there", "identified", "duplicates")}
            rows.append({"way": name, "seconds": seconds / count, "in_place": placed, **kept})
    return rows


def _within(found: Box | None, box: Box) -> bool:
    if found is None:
        return False
    x, y = (found[0] + found[2]) / 2, (found[1] + found[3]) / 2
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def report(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    lines = ["| way | n | all there | in its drawn box | identified | twice | time |", "|---|---|---|---|---|---|---|"]
    base = mean(row["seconds"] for row in rows if row["way"] == UNGUIDED)
    for way in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == way]
        cells = [mean(row[key] for row in own) for key in ("all_there", "in_place", "identified", "duplicates")]
        time_ratio = mean(row["seconds"] for row in own) / base
        lines.append(f"| {way} | {len(own)} | {' | '.join(f'{cell:.2f}' for cell in (*cells, time_ratio))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", choices=TIERS, default="smoke")
    parser.add_argument("--choose", action="store_true", help="strengths of the bias, on the things for choosing")
    parser.add_argument("--folder", type=Path, default=Path("bench-output/guidance"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(options.threads)
    things, nouns, pictures = TIERS[options.tier]
    bench, rows = Laboratory(options.folder / "comfyui"), list[Row]()
    own, ways = (CHOOSING, STRENGTHS) if options.choose else (REPORTING, WAYS)
    folder = options.folder / ("choosing" if options.choose else "") / options.tier
    folder.mkdir(parents=True, exist_ok=True)
    for thing in own[:things]:
        word = learned(bench, thing, "whole photos")
        for number, other in enumerate([noun for noun in NOUNS if noun != thing.noun][:nouns]):
            file = folder / f"{thing.name}-{other}.json"
            if not file.exists():
                # What is loaded and prepared once must not count for the first way.
                bench.paint(PROMPT.format(word, other), SEED)
                found = painted(bench, ways, thing, word, other, number, pictures)
                with replacing(file) as temporary:
                    temporary.write_text(json.dumps(found) + "\n")
                log.info("%s done", file.stem)
            rows += json.loads(file.read_text())
    print(report(rows))


if __name__ == "__main__":
    main()
