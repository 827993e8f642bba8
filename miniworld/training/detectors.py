"""Train the two detectors from their seeds.

``python -m miniworld.training.detectors [--only yolo|detr] [--minutes N]``

Scenes and training state lie in ``miniworld/run/``; an interrupted run, or one whose minutes are over, continues where
its last checkpoint was. The finished detectors are measured on held-out scenes and written to ``miniworld/weights/``.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compinv_core.boxes.geometry import box_iou
from compinv_core.detectors.detections import Detector
from compinv_core.detectors.detr import load_detr
from compinv_core.detectors.yolo import load_yolo

from ..networks import detectors
from ..networks.autoencoder import Autoencoder
from ..networks.checkpoint import WEIGHTS, load_small
from ..networks.detectors import NOUN_NAMES
from ..world.dataset import disturbed, render_split
from ..world.scenes import Scene
from .fitting import Schedule, fit, save_atomically
from .optimiser import Muon
from .pictures import MOST_OBJECTS

log = logging.getLogger("compinv.miniworld")
SPLIT, PICTURES, HELD_OUT = 2, 6000, 500
DECODED = 1500
"""How many of the pictures are shown as the autoencoder decodes them: those are what the detectors will see."""
BATCH = 16
LEARNING_RATE = 2e-3
THRESHOLD, SAME_PLACE = 0.5, 0.5
"""Score from which an object counts as found, and the overlap (IoU) from which it is in its place."""
PICTURES_FILE = "detector-scenes.pt"
SETTINGS = Path(tempfile.gettempdir()) / "compinv-ultralytics"
"""Where ultralytics keeps its settings."""


class TimeIsUp(Exception):
    """The minutes given are over; the state is saved."""


@dataclass(frozen=True)
class Recipe:
    """How one of the detectors is made and trained."""

    network: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor]
    save: Callable[[dict[str, Tensor], Path], None]
    load: Callable[[Path], Detector]
    target: Path
    schedule: Schedule


RECIPES = {
    "yolo": Recipe(
        detectors.yolo_network,
        detectors.yolo_loss,
        detectors.save_yolo,
        lambda path: load_yolo(path, "YOLO of the miniature world", THRESHOLD, SETTINGS),
        WEIGHTS / "detector-yolo.pt",
        Schedule(steps=700, decay_from=250, warmup=30),
    ),
    "detr": Recipe(
        detectors.detr_network,
        detectors.detr_loss,
        detectors.save_detr,
        lambda path: load_detr(path, "DETR of the miniature world", THRESHOLD),
        WEIGHTS / "detector-detr",
        Schedule(steps=2500, decay_from=1200, warmup=100),
    ),
}


def truth(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Picture (SIDE, SIDE, 3) uint8 and rows (3, 5) of noun and corners in [0, 1], -1 where there is no object."""
    rows = np.full((MOST_OBJECTS, 5), -1, np.float32)
    for row, thing in zip(rows, scene.objects, strict=False):
        row[:] = (NOUN_NAMES.index(thing.noun), *np.clip(thing.box, 0, 1))
    return scene.image, rows


@torch.no_grad()
def render(count: int, decoded: int) -> dict[str, Tensor]:
    """Scenes as tensors: ``pictures`` (count, 3, SIDE, SIDE) uint8, the first `decoded` as the autoencoder shows them;
    ``rows`` (count, 3, 5) float32."""
    images, rows = zip(*render_split(SPLIT, count, truth), strict=True)
    pictures = torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)))
    autoencoder = Autoencoder()
    autoencoder.load_state_dict(load_small(WEIGHTS / "autoencoder.safetensors")[0])
    for batch in pictures[:decoded].split(50):
        seen = autoencoder.eval().decode(autoencoder.encode(batch.float().div(255)))
        batch.copy_(seen.clamp(0, 1).mul(255).byte())
    return {"pictures": pictures, "rows": torch.from_numpy(np.stack(rows))}


def scenes(folder: Path, count: int = PICTURES + HELD_OUT, decoded: int = DECODED) -> dict[str, Tensor]:
    """`render`, from ``folder`` where it was done already."""
    path = folder / PICTURES_FILE
    if not path.exists():
        log.info("rendering %d scenes", count)
        save_atomically(render(count, decoded), path)
    return torch.load(path, weights_only=True)


def train_detector(
    recipe: Recipe,
    data: dict[str, Tensor],
    checkpoint: Path,
    seed: int = 5,
    deadline: float = float("inf"),
    further: bool = False,
) -> dict[str, Tensor]:
    """Train on all scenes but the last `HELD_OUT`, and return the moving average of the weights.

    ``further`` starts from the weights that are there, not from the seed.

    Raises
    ------
    TimeIsUp
        When `deadline` (of the monotonic clock, in seconds) has passed.
    """
    torch.manual_seed(seed)
    network = recipe.network().train()
    if further:
        network.load_state_dict(recipe.load(recipe.target).network.float().state_dict(), strict=False)
    count = len(data["pictures"]) - HELD_OUT

    def loss(generator: torch.Generator) -> Tensor:
        if time.monotonic() > deadline:
            raise TimeIsUp
        chosen = torch.randint(count, (BATCH,), generator=generator)
        pictures = disturbed(data["pictures"][chosen].float().div(255), generator)
        return recipe.loss(network, pictures, data["rows"][chosen])

    return fit(
        network,
        Muon(network, LEARNING_RATE),
        loss,
        recipe.schedule,
        LEARNING_RATE,
        checkpoint,
        seed,
        save_every=25,
        average_decay=0.99,
    )


def measure(detector: Detector, data: dict[str, Tensor]) -> dict[str, float]:
    """Recall and precision of nouns, in their places, and the mean IoU of those found, on the held-out scenes."""
    pictures = data["pictures"][-HELD_OUT:].movedim(1, -1).float().div(255)
    found = [thing for batch in pictures.split(50) for thing in detector.detect(batch)]
    right, overlaps, there, said = 0, [], 0, 0
    for rows, things in zip(data["rows"][-HELD_OUT:], found, strict=True):
        said += len(things)
        for noun, *box in rows[rows[:, 0] >= 0].tolist():
            there += 1
            same = [thing for thing in things if thing.label == NOUN_NAMES[int(noun)]]
            overlaps_here = box_iou(torch.tensor([thing.box for thing in same]).view(-1, 4), torch.tensor(box))
            overlap = max(overlaps_here.tolist(), default=0.0)
            if overlap >= SAME_PLACE:
                right += 1
                overlaps.append(overlap)
    return {
        "recall": right / there,
        "precision": right / said if said else 0.0,
        "mean IoU": float(np.mean(overlaps)) if overlaps else 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=Path(__file__).parents[1] / "run", help="training state and pictures"
    )
    parser.add_argument("--only", choices=tuple(RECIPES), help="train just one")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this time; run again to go on")
    parser.add_argument("--further", action="store_true", help="start from the weights that are there")
    parser.add_argument("--steps", type=int, help="by default as many as each takes from its seed")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * options.minutes

    data = scenes(options.folder)
    for name in [options.only] if options.only else RECIPES:
        recipe = RECIPES[name]
        if options.steps:
            recipe = replace(recipe, schedule=Schedule(options.steps, options.steps // 3, warmup=20))
        state = options.folder / f"detector-{name}.pt"
        try:
            weights = train_detector(recipe, data, state, deadline=deadline, further=options.further)
        except TimeIsUp:
            log.info("%s: the minutes are over; run it again to go on", name)
            return
        recipe.save(weights, recipe.target)
        log.info("%s on held-out scenes: %s", name, json.dumps(measure(recipe.load(recipe.target), data)))


if __name__ == "__main__":
    main()
