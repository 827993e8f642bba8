"""What the training of a layout predictor found, as a report and as a few lines of text."""

from __future__ import annotations

from dataclasses import asdict

from ..basics.report import Report
from .dataset import LayoutDataset
from .predictor import LayoutPredictor
from .training import LayoutTrainingConfig, LayoutTrainingResult


def layout_report(
    predictor: LayoutPredictor,
    result: LayoutTrainingResult,
    dataset: LayoutDataset,
    config: LayoutTrainingConfig,
) -> Report:
    """Describe a training: the data, the settings, and the scores on held-out pairs beside the baselines'."""
    score = result.scores["predictor"]
    return Report(
        "layout-predictor",
        models={"detector": dataset.detector, "text encoder": predictor.text_encoder},
        settings={
            **asdict(config),
            "data set": dataset.folder.name,
            "template": dataset.template,
            "vocabulary": predictor.vocabulary,
            "held-out pairs": [list(pair) for pair in result.held_out_pairs],
        },
        seeds=(config.seed,),
        summary={
            "pictures": dataset.pictures,
            "pictures without both nouns": dataset.incomplete,
            **{f"pictures {what}": count for what, count in result.pictures.items()},
            "iou": score.iou,
            "iou either side": score.iou_either_side,
        },
        rows=[
            {"layout": name, "iou": each.iou, "iou either side": each.iou_either_side}
            for name, each in result.scores.items()
        ],
    )


def summary_text(result: LayoutTrainingResult) -> str:
    """Return the scores as lines of text."""
    lines = [f"IoU on {result.pictures['held out']} pictures of {len(result.held_out_pairs)} held-out pairs"]
    lines += [
        f"{name}: {score.iou:.3f} ({score.iou_either_side:.3f} with either noun on the left)"
        for name, score in result.scores.items()
    ]
    return "\n".join(lines)
