"""Train the judge on renders, half of them as the autoencoder shows them, for a given time."""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..networks.autoencoder import Autoencoder
from ..networks.checkpoint import rounded, save_small
from ..networks.judge import NOUN_NAMES, THRESHOLD, Judge, pooled
from ..world.dataset import disturbed
from ..world.instances import INSTANCES, PHOTOS, photos
from .autoencoder import ready
from .optimiser import Muon
from .pictures import Store
from .plan import Clock, Plan, begin_process, device, half_precision, set_rate

MOST_PICTURES, HELD_OUT_SHARE = 60_000, 0.04
LEARNING_RATE, CONSTANT = 1.5e-3, 0.4
CELLS, TEMPERATURE, NOUNS_AT_ONCE = 16, 0.1, 3
FIELDS = ("pictures", "objects", "masks", "backgrounds", "groups")


class Truths:
    """The judge's data on the device.

    Attributes
    ----------
    pictures
        (N, 3, SIDE, SIDE) uint8.
    objects, masks
        (N, 3, 9) float32 as `pictures.FIELDS` says, and (N, 3, 32, 32) float32 in [0, 1].
    backgrounds, groups
        (N,) int64.
    """

    def __init__(self, rows: dict[str, np.ndarray]) -> None:
        tensors = {name: torch.from_numpy(np.ascontiguousarray(rows[name])).to(device()) for name in FIELDS}
        self.pictures = tensors["pictures"].permute(0, 3, 1, 2).contiguous()
        self.objects, self.masks = tensors["objects"], tensors["masks"]
        self.backgrounds, self.groups = tensors["backgrounds"].long(), tensors["groups"].long()

    @classmethod
    def of_store(cls, store: Store, most: int = MOST_PICTURES) -> Truths:
        """Some of the rendered pictures, neighbours together so that portraits stay with their like."""
        which = store.available()
        which = np.concatenate([which[which[:, 0] == r][: most // len(store.done)] for r in range(len(store.done))])
        return cls({name: store.take(name, which) for name in FIELDS})

    @classmethod
    def of_scenes(cls, scenes: list[dict]) -> Truths:
        """What `pictures.truth` says of scenes."""
        return cls({name: np.stack([np.asarray(scene.get(name, -1)) for scene in scenes]) for name in FIELDS})

    def portraits(self, last: int) -> list[Tensor]:
        """By noun, the numbers (n, 2) of two pictures of the same thing, of those before ``last``."""
        groups = self.groups[:last]
        same = ((groups[:-1] == groups[1:]) & (groups[1:] >= 0)).nonzero()[:, 0]
        noun = self.objects[same, 0, 0].long()
        return [torch.stack([same[noun == k], same[noun == k] + 1], 1) for k in range(len(NOUN_NAMES))]


@torch.no_grad()
def as_decoded(model: Autoencoder, pictures: Tensor, noise: float = 0.08) -> Tensor:
    """Pictures uint8 as the autoencoder shows them, with a little noise on the latents."""
    shown = []
    for batch in pictures.split(250):
        with half_precision():
            latents = model.encode(batch.float().div(255))
            shown.append(model.decode(latents + noise * torch.randn_like(latents)).float().clamp(0, 1).mul(255).byte())
    return torch.cat(shown)


def judge_loss(judge: Judge, pictures: Tensor, objects: Tensor, masks: Tensor, backgrounds: Tensor) -> Tensor:
    """Centres, presence, boxes, masks, looks and background, weighted to be of one size.

    Parameters
    ----------
    pictures
        (B, 3, SIDE, SIDE) in [0, 1].
    objects, masks, backgrounds
        As `Truths` has them; masks uint8.
    """
    with half_precision():
        verdict = judge(pictures)
    b, j = (objects[..., 0] >= 0).nonzero(as_tuple=True)
    there = objects[b, j]
    noun, box, looks = there[:, 0].long(), there[:, 1:5], there[:, 5:].long()
    column, row = (((box[:, i] + box[:, i + 2]) / 2 * CELLS).long().clamp(0, CELLS - 1) for i in (0, 1))
    centres = verdict.centres.float()
    target = torch.zeros_like(centres)
    target[b, noun, row, column] = 1
    # The cells around a centre are neither right nor wrong.
    counted = 1 - F.max_pool2d(target, 3, 1, padding=1) + 12 * target
    heat = (F.binary_cross_entropy_with_logits(centres, target, reduction="none") * counted).mean()
    found = F.binary_cross_entropy_with_logits(centres.flatten(2).amax(2), target.flatten(2).amax(2))
    boxes = F.smooth_l1_loss(verdict.boxes.float()[b, :, row, column], box, beta=0.02)
    outlines = torch.zeros_like(verdict.masks, dtype=torch.float32)
    outlines.index_put_((b, noun), masks[b, j].float().div(255), accumulate=True)
    outline = F.binary_cross_entropy_with_logits(verdict.masks.float(), outlines.clamp(max=1))
    look = torch.zeros((), device=pictures.device)
    for wanted, logits in zip(looks.unbind(1), verdict.looks.values(), strict=True):
        total = F.cross_entropy(logits.float()[b, :, row, column], wanted, ignore_index=-1, reduction="sum")
        look = look + total / (wanted >= 0).sum().clamp(min=1)
    scenery = F.cross_entropy(verdict.background.float(), backgrounds)
    return 20 * heat + 2 * found + 5 * boxes + 10 * outline + 0.2 * look + 0.2 * scenery


def identity_loss(first: Tensor, second: Tensor) -> Tensor:
    """NT-Xent (Chen et al. 2020, arXiv 2002.05709) between two views (B, F) of the same B things."""
    logits = first @ second.T / TEMPERATURE
    truth = torch.arange(len(first), device=first.device)
    return F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)


@torch.no_grad()
def set_feature_statistics(judge: Judge, data: Truths) -> None:
    """Mean and spread of whole-picture and object features over renders."""
    pictures, objects = [], []
    for i in range(0, min(1000, len(data.pictures)), 50):
        features = judge(data.pictures[i : i + 50].float().div(255)).features
        pictures.append(features.mean((2, 3)))
        objects.append(pooled(features, data.masks[i : i + 50, 0].float()))
    for kind, rows in enumerate((torch.cat(pictures), torch.cat(objects))):
        judge.feature_mean[kind], judge.feature_std[kind] = rows.mean(0), rows.std(0) + 1e-4


@torch.no_grad()
def accuracy(judge: Judge, pictures: Tensor, objects: Tensor) -> dict[str, float]:
    """Of pictures uint8: recall and precision over nouns, the worst noun's recall, and the share of exact counts."""
    verdicts = [judge(batch.float().div(255)) for batch in pictures.split(50)]
    counts = torch.cat([verdict.counts() for verdict in verdicts])
    said = torch.cat([verdict.presence() for verdict in verdicts]) > THRESHOLD
    truth = torch.zeros_like(counts)
    b, j = (objects[..., 0] >= 0).nonzero(as_tuple=True)
    truth.index_put_((b, objects[b, j, 0].long()), torch.ones_like(b), accumulate=True)
    there, twice = truth > 0, truth > 1
    recall = (said & there).sum(0) / there.sum(0).clamp(min=1)
    return {
        "recall": float((said & there).sum() / there.sum()),
        "precision": float((said & there).sum() / said.sum().clamp(min=1)),
        "worst recall": float(recall.min()),
        "counts right": float((counts == truth).all(1).float().mean()),
        "duplicates seen": float(((counts > 1) & twice).sum() / twice.sum().clamp(min=1)),
    }


@torch.no_grad()
def own_things_recognised(judge: Judge, autoencoder: Autoencoder) -> dict[str, float]:
    """Share of held-out photos whose own thing the judge picks among all, as drawn and as decoded."""
    seen, held = (
        torch.from_numpy(np.stack([photos(thing, PHOTOS, first)[0] for thing in INSTANCES.values()])).to(device())
        for first in (0, PHOTOS)
    )
    shares = {}
    for name, show in (("as drawn", lambda p: p), ("as decoded", lambda p: as_decoded(autoencoder, p, 0.0))):
        seen_features, held_features = (
            _features(judge, show(photographs.flatten(0, 1).permute(0, 3, 1, 2))) for photographs in (seen, held)
        )
        centres = F.normalize(seen_features.unflatten(0, seen.shape[:2]).mean(1), dim=1)
        right = (held_features @ centres.T).argmax(1) == torch.arange(len(seen), device=device()).repeat_interleave(
            PHOTOS
        )
        shares[f"own things recognised, {name}"] = float(right.float().mean())
    return shares


def _features(judge: Judge, pictures: Tensor) -> Tensor:
    """Features of the own things in photos uint8, in the boxes where the judge finds their nouns."""
    pictures = pictures.float().div(255)
    nouns = [NOUN_NAMES.index(thing.noun) for thing in INSTANCES.values()]
    which = torch.tensor(nouns, device=pictures.device).repeat_interleave(PHOTOS)
    boxes = judge(pictures).best_boxes()[torch.arange(len(pictures), device=pictures.device), which]
    return judge.identify(pictures, boxes)


class _Views:
    """Pictures as drawn or as decoded by chance, disturbed a little."""

    def __init__(self, data: Truths, autoencoder: Autoencoder) -> None:
        self.data, self.decoded = data, as_decoded(autoencoder, data.pictures)

    def pictures(self, rows: Tensor) -> Tensor:
        shown = torch.rand(len(rows), 1, 1, 1, device=rows.device) < 0.55
        chosen = torch.where(shown, self.decoded[rows], self.data.pictures[rows])
        return disturbed(chosen.float().div_(255)).contiguous(memory_format=torch.channels_last)

    def identity_loss(self, judge: Judge, portraits: list[Tensor], count: int) -> Tensor:
        """Contrast of portraits of few nouns, so that looks decide and not shapes."""
        nouns = [k for k in torch.randperm(len(portraits)).tolist() if len(portraits[k])][:NOUNS_AT_ONCE]
        each = max(2, count // NOUNS_AT_ONCE)
        chosen = torch.cat(
            [portraits[k][torch.randint(len(portraits[k]), (each,), device=portraits[k].device)] for k in nouns]
        )
        features = []
        for rows in chosen.unbind(1):
            boxes = self.data.objects[rows, 0, 1:5]
            size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
            with half_precision():
                features.append(judge.identify(self.pictures(rows), boxes + 0.05 * size * torch.randn_like(boxes)))
        return identity_loss(*features)


def train_judge(plan: Plan, autoencoder_weights: dict[str, Tensor], seconds: float, seed: int = 3) -> None:
    """Train for so many seconds, measure on what it has not seen, and write the weights; a process of its own."""
    begin_process(seed)
    autoencoder = ready(autoencoder_weights)
    data = Truths.of_store(Store(plan))
    held = max(8, int(HELD_OUT_SHARE * len(data.pictures)))
    last = len(data.pictures) - held
    views, portraits = _Views(data, autoencoder), data.portraits(last)
    judge = Judge().to(device(), memory_format=torch.channels_last)
    optimiser, clock, step, batch = Muon(judge, LEARNING_RATE), Clock(seconds), 0, max(8, plan.batch // 4)
    while clock.progress < 1:
        set_rate(optimiser, LEARNING_RATE * clock.rate(step, CONSTANT))
        rows = torch.randint(last, (batch,), device=device())
        loss = judge_loss(judge, views.pictures(rows), data.objects[rows], data.masks[rows], data.backgrounds[rows])
        other = views.identity_loss(judge, portraits, batch)
        optimiser.zero_grad(set_to_none=True)
        (loss + other).backward()
        optimiser.step()
        if step % 100 == 0:
            plan.say("judge: step %d, loss %.4f, of identity %.4f", step, loss.item(), other.item())
        step += 1
    set_feature_statistics(judge.eval(), data)
    weights = {name: tensor.detach().float().cpu().contiguous() for name, tensor in judge.state_dict().items()}
    judge.load_state_dict(rounded(weights))
    scores: dict = {
        name: accuracy(judge, pictures[last:], data.objects[last:])
        for name, pictures in (("as drawn", data.pictures), ("as decoded", views.decoded))
    }
    scores |= own_things_recognised(judge, autoencoder)
    plan.say("judge: %d steps; on held-out renders: %s", step, scores)
    save_small(weights, plan.into / "judge.safetensors", {"accuracy": json.dumps(scores)})
