"""The layout predictor on the miniature world: ``python -m bench.layout``.

Paints noun pairs with the stock sampler, finds the nouns, trains the predictor, and prints its mean overlap with the
found boxes on held-out pairs beside that of the constant layout and of each noun's mean box, over several splits of
the pairs; and where it puts each noun. Pictures are kept, so an interrupted run continues. ``--tier smoke`` shows that
everything works, ``lite`` and ``full`` give numbers. ``--ship`` writes the predictor of the first split to
``miniworld/weights/``, where *Load Layout Predictor* finds it.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from miniworld.laboratory.judge_detector import JudgeDetector
from miniworld.laboratory.models import Laboratory
from miniworld.laboratory.recipe import PAINTING
from miniworld.networks.checkpoint import CHECKPOINT_NAME, WEIGHTS
from miniworld.world.drawing import NOUNS
from miniworld.world.placing import SIDE, USUAL_HEIGHT

TIERS = {
    # Few steps, so that it is quick; the judge then takes what it gets.
    "smoke": {"pairs": 6, "images_per_pair": 2, "steps": 10, "epochs": 2, "splits": 1, "threshold": 0.02},
    "lite": {"pairs": 40, "images_per_pair": 8, "steps": PAINTING["steps"], "epochs": 60, "splits": 3},
    "full": {"pairs": 120, "images_per_pair": 8, "steps": PAINTING["steps"], "epochs": 60, "splits": 5},
}
SHIPPED = WEIGHTS / "layout-predictor.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", choices=TIERS, default="lite")
    parser.add_argument("--folder", type=Path, default=Path("bench-output/layout"))
    parser.add_argument("--detector", choices=("detr", "yolo", "judge"), default="detr")
    parser.add_argument("--threshold", type=float, help="least score of a found noun; by default the detector's own")
    parser.add_argument("--bfloat16", action="store_true", help="multiply in bfloat16 in the diffusion network")
    parser.add_argument("--ship", action="store_true", help="write the predictor to miniworld/weights")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    tier = TIERS[options.tier]
    laboratory = Laboratory(options.folder / "comfyui", options.bfloat16)
    dataset = collect(laboratory, options, tier)
    print(
        f"{dataset.pictures} pictures of {len(dataset.pairs)} pairs, both nouns found in {len(dataset.annotations)}",
        flush=True,
    )
    runs = [train(laboratory, dataset, tier["epochs"], seed) for seed in range(tier["splits"])]
    report(options, dataset, runs, usual_heights(laboratory, runs[0][0]))
    if options.ship:
        ship(laboratory, runs[0][0])


def load_detector(kind: str, threshold: float | None, folder: Path) -> Any:
    """One of the detectors trained on the miniature world, or its judge."""
    if kind == "judge":
        return JudgeDetector() if threshold is None else JudgeDetector(threshold)
    if kind == "yolo":
        from compinv_core.detectors.yolo import load_yolo

        name = "YOLO of the miniature world"
        return load_yolo(WEIGHTS / "detector-yolo.pt", name, 0.4 if threshold is None else threshold, folder)
    from compinv_core.detectors.detr import load_detr

    return load_detr(WEIGHTS / "detector-detr", "DETR of the miniature world", 0.8 if threshold is None else threshold)


def collect(laboratory: Laboratory, options: argparse.Namespace, tier: dict[str, Any]) -> Any:
    """The data set of a tier, with the pictures that are there already."""
    from compinv_core.host.layouts.collection import CollectionConfig, collect_layouts
    from compinv_core.host.text.encoder import load_anchors

    painting = {**PAINTING, "steps": tier["steps"]}
    config = CollectionConfig(
        pairs=tier["pairs"], images_per_pair=tier["images_per_pair"], width=SIDE, height=SIDE, seed=0, batch_size=4,
        **painting,
    )  # fmt: skip
    threshold = tier.get("threshold") if options.threshold is None else options.threshold
    detector = load_detector(options.detector, threshold, options.folder / "settings")
    folder = options.folder / f"{options.tier}-{options.detector}"

    def show(dataset: Any) -> None:
        if dataset.pictures % 80 < config.batch_size:
            logging.info("%d pictures, %d complete", dataset.pictures, len(dataset.annotations))

    with torch.inference_mode():
        return collect_layouts(
            laboratory.model,
            laboratory.clip,
            laboratory.vae,
            detector,
            load_anchors(laboratory.clip, list(NOUNS)),
            config,
            folder,
            show,
        )


def train(laboratory: Laboratory, dataset: Any, epochs: int, seed: int) -> tuple[Any, Any]:
    """A predictor and its scores, with the pairs split and the weights drawn from a seed."""
    from compinv_core.host.layouts.prediction import train_predictor
    from compinv_core.layouts.training import LayoutTrainingConfig

    config = LayoutTrainingConfig(epochs=epochs, seed=seed)
    with torch.inference_mode():
        return train_predictor(laboratory.clip, dataset, config, name="miniature world")


def report(options: argparse.Namespace, dataset: Any, runs: list[tuple[Any, Any]], heights: dict[str, float]) -> None:
    """Print the table and keep its numbers."""
    names = list(runs[0][1].scores)
    held_out = sum(result.pictures["held out"] for _, result in runs)
    print(f"\nMean IoU over {len(runs)} splits, {held_out} held-out pictures ({dataset.detector})")
    print(f"| {'layout':20} | IoU             | IoU, either side |\n|---|---|---|")
    for name in names:
        cells = [[getattr(result.scores[name], kind) for _, result in runs] for kind in ("iou", "iou_either_side")]
        print(
            f"| {name:20} | "
            + " | ".join(f"{statistics.mean(c):.3f} ({min(c):.3f}–{max(c):.3f})" for c in cells)
            + " |"
        )
    print("\nPredicted height of each noun's centre beside another noun (and that of the renderer), from the top:")
    print(", ".join(f"{noun} {mean:.2f} ({USUAL_HEIGHT[noun]:.2f})" for noun, mean in heights.items()))
    rows = {
        "detector": dataset.detector,
        "pictures": dataset.pictures,
        "complete": len(dataset.annotations),
        "splits": [
            {name: asdict(score) for name, score in result.scores.items()} | {"pictures": dict(result.pictures)}
            for _, result in runs
        ],
        "heights": heights,
    }
    path = options.folder / f"{options.tier}-{options.detector}.json"
    path.write_text(json.dumps(rows, indent=1) + "\n")


def ship(laboratory: Laboratory, predictor: Any) -> None:
    """Write a predictor for the text encoder that a person loads; the laboratory's lacks layers that do nothing."""
    import comfy.sd

    from compinv_core.host.fingerprints import text_encoder_fingerprint
    from compinv_core.layouts.predictor_file import write_predictor

    checkpoint = laboratory.base / "models" / "checkpoints" / CHECKPOINT_NAME
    _, clip, _, _ = comfy.sd.load_checkpoint_guess_config(str(checkpoint), output_vae=False, output_model=False)
    write_predictor(replace(predictor, text_encoder=text_encoder_fingerprint(clip)), SHIPPED)
    print(f"Wrote {SHIPPED} ({SHIPPED.stat().st_size / 1e6:.2f} MB)")


def usual_heights(laboratory: Laboratory, predictor: Any) -> dict[str, float]:
    """Mean predicted vertical centre of each noun beside three others, from the top down."""
    from compinv_core.host.layouts.prediction import predict_layout

    nouns = list(predictor.vocabulary)
    centres: dict[str, list[float]] = {noun: [] for noun in nouns}
    for index, noun in enumerate(nouns):
        for step in range(1, min(4, len(nouns))):
            pair = (noun, nouns[(index + step) % len(nouns)])
            layout, _ = predict_layout(predictor, laboratory.clip, pair, SIDE, SIDE)
            for each, box in zip(pair, layout.boxes, strict=True):
                centres[each].append((box[1] + box[3]) / 2)
    means = {noun: statistics.mean(values) for noun, values in centres.items()}
    return dict(sorted(means.items(), key=lambda item: item[1]))


if __name__ == "__main__":
    main()
