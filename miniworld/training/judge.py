"""Train the judge on renders of its own, half of each batch as the autoencoder would show it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..networks.autoencoder import Autoencoder
from ..networks.judge import LOOKS, NOUN_NAMES, THRESHOLD, Judge
from ..world.backgrounds import BACKGROUNDS
from ..world.dataset import disturbed, render_split
from ..world.scenes import COLOURS, PATTERNS, SIDE, Scene
from .fitting import Schedule, fit
from .optimiser import Muon

log = logging.getLogger("compinv.miniworld")
SPLIT, PICTURES, HELD_OUT = 1, 9000, 1000
DECODED = 2000
"""How many of the pictures the judge also sees as the autoencoder shows them."""
BATCH = 32
SCHEDULE = Schedule(steps=1300, decay_from=300, warmup=50)
LEARNING_RATE = 2e-3
CELLS, MASK_CELLS = 16, 32


def truth(scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Picture, two rows of (noun, box, looks) with -1 for no object, masks (2, 32, 32), background index."""
    rows = np.full((2, 8), -1, np.float32)
    masks = np.zeros((2, MASK_CELLS, MASK_CELLS), np.float32)
    for i, o in enumerate(scene.objects):
        pattern = 1 + PATTERNS.index(o.pattern) if o.pattern else 0
        looks = (list(COLOURS).index(o.colour), list(COLOURS).index(o.second_colour) if o.pattern else -1, pattern)
        rows[i] = (NOUN_NAMES.index(o.noun), *np.clip(o.box, 0, 1), *looks)
        masks[i] = o.mask.reshape(MASK_CELLS, SIDE // MASK_CELLS, MASK_CELLS, -1).mean((1, 3))
    return scene.image, rows, masks, BACKGROUNDS.index(scene.background)


class Truths:
    """The judge's data as tensors: pictures (N, 3, SIDE, SIDE) uint8, rows (N, 2, 8), masks, backgrounds (N,)."""

    def __init__(self, scenes: list) -> None:
        images, rows, masks, backgrounds = zip(*scenes, strict=True)
        self.pictures = torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)))
        self.rows = torch.from_numpy(np.stack(rows))
        self.masks = torch.from_numpy(np.stack(masks))
        self.backgrounds = torch.tensor(backgrounds)


@torch.no_grad()
def as_decoded(model: Autoencoder, pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures uint8 as the autoencoder shows them, with a little noise on the latents."""
    shown = []
    for batch in pictures.split(50):
        latents = model.encode(batch.float().div(255))
        latents = latents + 0.1 * torch.randn(latents.shape, generator=generator)
        shown.append(model.decode(latents).clamp(0, 1).mul(255).byte())
    return torch.cat(shown)


def judge_loss(judge: Judge, pictures: Tensor, rows: Tensor, masks: Tensor, backgrounds: Tensor) -> Tensor:
    """Centres, presence, boxes, masks, looks and background, weighted to be of one size."""
    verdict = judge(pictures)
    target, counted = torch.zeros_like(verdict.centres), torch.ones_like(verdict.centres)
    outlines = torch.zeros_like(verdict.masks)
    boxes = looks = torch.zeros(())
    for j in (0, 1):
        k = (rows[:, j, 0] >= 0).nonzero()[:, 0]
        if not len(k):
            continue
        noun, box = rows[k, j, 0].long(), rows[k, j, 1:5]
        u = ((box[:, 0] + box[:, 2]) / 2 * CELLS).long().clamp(0, CELLS - 1)
        v = ((box[:, 1] + box[:, 3]) / 2 * CELLS).long().clamp(0, CELLS - 1)
        for du in range(-2, 3):
            for dv in range(-2, 3):
                counted[k, noun, (v + dv).clamp(0, CELLS - 1), (u + du).clamp(0, CELLS - 1)] = 0
        target[k, noun, v, u] = 1
        outlines[k, noun] = masks[k, j]
        boxes = boxes + F.smooth_l1_loss(verdict.boxes[k, :, v, u], box, beta=0.05)
        for i, name in enumerate(LOOKS):
            wanted = rows[k, j, 5 + i].long()
            # An object without a pattern has no second colour; a batch may be without any pattern.
            total = F.cross_entropy(verdict.looks[name][k, :, v, u], wanted, ignore_index=-1, reduction="sum")
            looks = looks + total / (wanted >= 0).sum().clamp(min=1)
    counted[target > 0] = 1
    centres = (F.binary_cross_entropy_with_logits(verdict.centres, target, reduction="none") * counted).mean()
    found = F.binary_cross_entropy_with_logits(verdict.centres.flatten(2).amax(2), target.flatten(2).amax(2))
    outline = F.binary_cross_entropy_with_logits(verdict.masks, outlines)
    scenery = F.cross_entropy(verdict.background, backgrounds)
    return 60 * centres + 3 * found + 2 * boxes + 10 * outline + 0.2 * looks + 0.2 * scenery


@torch.no_grad()
def set_feature_statistics(judge: Judge, data: Truths) -> None:
    """Mean and spread of whole-picture and object features over renders."""
    pictures, objects = [], []
    for i in range(0, 1000, 50):
        verdict = judge(data.pictures[i : i + 50].float().div(255))
        masks = data.masks[i : i + 50, 0]
        weight = masks[:, None] / masks.sum((1, 2)).clamp(min=1e-6).view(-1, 1, 1, 1)
        pictures.append(verdict.features.mean((2, 3)))
        objects.append((verdict.features * weight).sum((2, 3)))
    for kind, rows in enumerate((torch.cat(pictures), torch.cat(objects))):
        judge.feature_mean[kind], judge.feature_std[kind] = rows.mean(0), rows.std(0) + 1e-4


@torch.no_grad()
def accuracy(judge: Judge, pictures: Tensor, rows: Tensor) -> dict[str, float]:
    """Recall and precision over nouns, and the worst noun's recall, on pictures uint8."""
    score = torch.cat([judge(batch.float().div(255)).presence() for batch in pictures.split(50)])
    there = torch.zeros_like(score)
    for j in (0, 1):
        k = (rows[:, j, 0] >= 0).nonzero()[:, 0]
        there[k, rows[k, j, 0].long()] = 1
    said = (score > THRESHOLD).float()
    recall = (said * there).sum(0) / there.sum(0)
    return {
        "recall": float((said * there).sum() / there.sum()),
        "precision": float((said * there).sum() / said.sum()),
        "worst recall": float(recall.min()),
    }


def train_judge(autoencoder: Autoencoder, folder: Path, seed: int = 3) -> tuple[dict[str, Tensor], dict]:
    """Train, measure on held-out renders as drawn and as decoded; returns weights and accuracies."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    data = Truths(render_split(SPLIT, PICTURES + HELD_OUT, truth))
    shown = as_decoded(autoencoder, torch.cat([data.pictures[:DECODED], data.pictures[PICTURES:]]), generator)
    judge = Judge().to(memory_format=torch.channels_last)

    def loss(g: torch.Generator) -> Tensor:
        rows = torch.randint(PICTURES, (BATCH,), generator=g)
        rows[: BATCH // 2] %= DECODED
        pictures = torch.cat([shown[rows[: BATCH // 2]], data.pictures[rows[BATCH // 2 :]]]).float().div(255)
        pictures = disturbed(pictures, g).contiguous(memory_format=torch.channels_last)
        return judge_loss(judge, pictures, data.rows[rows], data.masks[rows], data.backgrounds[rows])

    average = fit(
        judge, Muon(judge, LEARNING_RATE), loss, SCHEDULE, LEARNING_RATE, folder / "judge.pt", seed, average_decay=0.99
    )
    judge.load_state_dict(average)
    judge.eval()
    set_feature_statistics(judge, data)
    held = {"as drawn": data.pictures[PICTURES:], "as decoded": shown[DECODED:]}
    scores = {name: accuracy(judge, pictures, data.rows[PICTURES:]) for name, pictures in held.items()}
    log.info("judge on held-out renders: %s", scores)
    return judge.state_dict(), scores
