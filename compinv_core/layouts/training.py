"""Training the layout predictor on the boxes of noun pairs, with whole pairs held out to measure it on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..basics.errors import UserError
from ..basics.settings import check_settings, setting
from ..boxes.geometry import box_iou, box_loss, corners_to_centres, inside_picture, mirrored
from ..training.events import Sink, Work, nobody
from .dataset import Pair, PairLayout
from .predictor import FEATURES, PairNetwork

RELEASED_LAYOUT = ((0.1, 0.2, 0.5, 0.8), (0.6, 0.2, 0.95, 0.8))
"""The constant boxes of the first and the second concept in the authors' released code."""

_SIDE_LOSS_WEIGHT = 0.1

Features = Mapping[Pair, torch.Tensor]


@dataclass(frozen=True)
class LayoutTrainingConfig:
    """Settings of a training; the fields are the node's inputs, batch size and weight decay besides."""

    epochs: int = setting(
        60,
        "whole number",
        "Passes over the data. Seconds to minutes; the paper does not say how many",
        within=(1, 10_000),
        group="training",
    )
    learning_rate: float = setting(
        0.002,
        "number",
        "Highest rate of AdamW; it rises for a twentieth of the training and then falls to 0. The paper does not say",
        within=(0, 1),
        above=True,
        step=0.0001,
        group="training",
    )
    seed: int = setting(
        0,
        "whole number",
        "Seed of the first weights, the order of the pictures, and the pairs held out",
        within=(0, 2**64 - 1),
        seed=True,
        group="training",
    )
    features: str = setting(
        FEATURES[0],
        "choice",
        "What the predictor sees of a noun: its tokens after the text encoder (the paper), or its raw input embedding",
        choices=FEATURES,
        rare=True,
        optional=True,
        group="rare",
    )
    held_out: float = setting(
        0.2,
        "number",
        "Share of the noun pairs that are only measured on",
        within=(0.01, 0.9),
        step=0.01,
        rare=True,
        optional=True,
        group="rare",
    )
    batch_size: int = setting(64, "whole number", "Pictures per step", low=1)
    weight_decay: float = setting(0.05, "number", "Of AdamW", low=0)

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class LayoutScore:
    """Mean overlap of predicted with found boxes.

    Attributes
    ----------
    iou : float
        Mean intersection over union, over the pictures and both boxes.
    iou_either_side : float
        The same, where a prediction counts as it is or mirrored as a whole, whichever fits the picture better: which
        noun stands on which side is chance in most pictures, and this leaves it out.
    """

    iou: float
    iou_either_side: float


@dataclass(frozen=True, eq=False)
class LayoutTrainingResult:
    """What `train_layout` returns.

    Attributes
    ----------
    network : PairNetwork
        In evaluation mode.
    losses : list of float
        Mean loss of each epoch.
    held_out_pairs : tuple of pairs of str
    scores : mapping of str to LayoutScore
        On the held-out pairs: ``predictor``; ``constant layout``; ``class mean``, the mean box of each noun over the
        training pictures; and for comparison ``class mean by side``, which puts the first noun on the left,
        and each at the mean box of its side.
    pictures : mapping of str to int
        Number of pictures ``trained on`` and ``held out``.
    """

    network: PairNetwork
    losses: list[float]
    held_out_pairs: tuple[Pair, ...]
    scores: Mapping[str, LayoutScore]
    pictures: Mapping[str, int]


def split_pairs(rows: Sequence[PairLayout], share: float, seed: int) -> tuple[Pair, ...]:
    """Choose a share of the pairs, at least one, to hold out, each sorted.

    Every noun of theirs remains in another pair where that is possible.

    Raises
    ------
    UserError
        With fewer than two pairs.
    """
    pairs = sorted({_sorted_pair(row.nouns) for row in rows})
    if len(pairs) < 2:
        raise UserError(
            f"The data set has {len(rows)} usable pictures of {len(pairs)} noun pairs, but training takes at least two "
            "pairs, one of them to measure on; raise `pairs` or `images_per_pair` in Collect Layouts."
        )
    uses = {noun: sum(noun in pair for pair in pairs) for pair in pairs for noun in pair}
    wanted = min(max(1, round(share * len(pairs))), len(pairs) - 1)
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen: list[Pair] = []
    for index in order:
        pair = pairs[index]
        if len(chosen) < wanted and all(uses[noun] > 1 for noun in pair):
            chosen.append(pair)
            for noun in pair:
                uses[noun] -= 1
    # With few pairs every noun may be in one pair only; then a pair of unseen nouns is measured on.
    chosen += [pairs[index] for index in order if pairs[index] not in chosen][: wanted - len(chosen)]
    return tuple(chosen)


def train_layout(
    rows: Sequence[PairLayout],
    features: Features,
    config: LayoutTrainingConfig,
    sink: Sink = nobody,
) -> LayoutTrainingResult:
    """Fit Eq. 8 to pictures of noun pairs, and measure it on pairs it has not seen.

    Parameters
    ----------
    features : mapping of pair to Tensor (2, D)
        Token features of every pair in `rows`, in the order of the pair's nouns; the two orders of a pair hold the
        same rows, swapped.
    sink : Sink
        Hears of every epoch; may raise to stop.

    Raises
    ------
    UserError
        When there are too few pairs, or the loss is no longer finite.
    """
    held_out = split_pairs(rows, config.held_out, config.seed)
    trained = [row for row in rows if _sorted_pair(row.nouns) not in held_out]
    measured = [row for row in rows if _sorted_pair(row.nouns) in held_out]
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        # Initial weights and dropout draw from torch's global generator.
        torch.manual_seed(config.seed)
        network, losses = _fit(_tensors(trained, features), config, sink)
    network.eval().requires_grad_(False)
    scores = {"predictor": _score(_predictions(network, measured, features), measured)}
    constant = torch.tensor(RELEASED_LAYOUT).expand(len(measured), 2, 4)
    scores["constant layout"] = _score(constant, measured)
    scores |= _class_means(trained, measured)
    counts = {"trained on": len(trained), "held out": len(measured)}
    return LayoutTrainingResult(network, losses, held_out, scores, counts)


def _fit(
    data: tuple[torch.Tensor, torch.Tensor], config: LayoutTrainingConfig, sink: Sink
) -> tuple[PairNetwork, list[float]]:
    features, boxes = data
    network = PairNetwork(features.shape[-1]).train()
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    steps = config.epochs * -(-len(boxes) // config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
    generator = torch.Generator().manual_seed(config.seed)
    losses: list[float] = []
    work = Work("training the layout predictor", config.epochs, sink)
    for epoch in range(config.epochs):
        total = 0.0
        for chosen in torch.randperm(len(boxes), generator=generator).split(config.batch_size):
            loss = pair_loss(network, features[chosen], boxes[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        losses.append(total / len(boxes))
        if not math.isfinite(losses[-1]):
            raise UserError(f"The loss became infinite or NaN in epoch {epoch + 1}; lower `learning_rate`.")
        work.report(epoch + 1, losses={"loss": losses[-1]})
    return network, losses


def pair_loss(network: PairNetwork, features: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Return the loss of Eq. 8 with its two parts: the box of each concept on its side, and which side it is.

    Smooth L1 + (1 - GIoU), mean over the boxes, plus 0.1 times the cross-entropy of the order. `features` are
    (B, 2, D), `boxes` (B, 2, 4) the corners of the found boxes.
    """
    first_left = boxes[:, 0, [0, 2]].sum(-1) <= boxes[:, 1, [0, 2]].sum(-1)
    sides = torch.stack([first_left, ~first_left], 1)
    targets = corners_to_centres(torch.where(sides[..., None], boxes, mirrored(boxes)))
    predicted = network.left_box(features, features.flip(1))
    order = network.order(features[:, 0], features[:, 1])
    side_loss = F.binary_cross_entropy_with_logits(order, first_left.to(order.dtype))
    return box_loss(predicted, targets).mean() + _SIDE_LOSS_WEIGHT * side_loss


def _rate(progress: float) -> float:
    warm_up = 0.05
    return min(1.0, progress / warm_up + 1e-3) * (1 + math.cos(math.pi * progress)) / 2


def _tensors(rows: Sequence[PairLayout], features: Features) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.stack([features[row.nouns] for row in rows]).float(), _boxes(rows)


def _boxes(rows: Sequence[PairLayout]) -> torch.Tensor:
    return torch.tensor([row.boxes for row in rows], dtype=torch.float32)


@torch.no_grad()
def _predictions(network: PairNetwork, rows: Sequence[PairLayout], features: Features) -> torch.Tensor:
    seen, _ = _tensors(rows, features)
    boxes = torch.stack(network(seen[:, 0], seen[:, 1]), 1)
    return inside_picture(boxes.flatten(0, 1)).view_as(boxes)


def _score(predicted: torch.Tensor, rows: Sequence[PairLayout]) -> LayoutScore:
    """Compare predicted boxes (n, 2, 4) with those of the rows."""
    found = _boxes(rows)
    plain = box_iou(predicted, found).mean(1)
    turned = box_iou(mirrored(predicted), found).mean(1)
    return LayoutScore(float(plain.mean()), float(torch.maximum(plain, turned).mean()))


def _class_means(trained: Sequence[PairLayout], measured: Sequence[PairLayout]) -> dict[str, LayoutScore]:
    """Score the mean box of each noun, over all pictures and over those with the noun on the left."""
    plain: dict[str, list[torch.Tensor]] = {}
    on_left: dict[str, list[torch.Tensor]] = {}
    for row, boxes in zip(trained, _boxes(trained), strict=True):
        first_left = bool(boxes[0, [0, 2]].sum() <= boxes[1, [0, 2]].sum())
        for noun, box, left in zip(row.nouns, boxes, (first_left, not first_left), strict=True):
            plain.setdefault(noun, []).append(box)
            on_left.setdefault(noun, []).append(box if left else mirrored(box))
    means = _means(plain)
    left_means = _means(on_left)
    everywhere = torch.stack([torch.stack([means(noun) for noun in row.nouns]) for row in measured])
    sided = torch.stack(
        [torch.stack([left_means(row.nouns[0]), mirrored(left_means(row.nouns[1]))]) for row in measured]
    )
    return {"class mean": _score(everywhere, measured), "class mean by side": _score(sided, measured)}


def _means(boxes: Mapping[str, list[torch.Tensor]]) -> Callable[[str], torch.Tensor]:
    """Return the mean box of a noun, or of all nouns for one that was not trained on."""
    overall = torch.stack([box for each in boxes.values() for box in each]).mean(0)
    means = {noun: torch.stack(each).mean(0) for noun, each in boxes.items()}
    return lambda noun: means.get(noun, overall)


def _sorted_pair(nouns: Pair) -> Pair:
    first, second = sorted(nouns)
    return (first, second)
