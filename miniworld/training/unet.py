"""Train the miniature UNet on latents of rendered scenes and their captions."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..networks.autoencoder import Autoencoder
from ..networks.diffusion import TIMESTEPS, LatentScale, alphas_cumprod, loss_weights
from ..networks.text_encoder import encode_ids, token_ids
from ..networks.unet import UNet
from .fitting import Schedule, fit, save_atomically
from .optimiser import Muon

log = logging.getLogger("compinv.miniworld")
BATCH = 64
LEARNING_RATE = 1e-3
CAPTION_DROP = 0.1


@dataclass(frozen=True)
class Stretch:
    """One warm-up and decay of the learning rate; the next stretch starts from its averaged weights.

    ``pairs`` is the share of two-object scenes in a batch: one object is learned early, two need most of the time.
    """

    schedule: Schedule
    pairs: float


STRETCHES = (
    Stretch(Schedule(steps=1100, decay_from=450, warmup=100), pairs=0.65),
    Stretch(Schedule(steps=1600, decay_from=600, warmup=50), pairs=0.85),
    Stretch(Schedule(steps=700, decay_from=150, warmup=50), pairs=0.75),
)


@torch.no_grad()
def encode_pictures(model: Autoencoder, pictures: Tensor, folder: Path) -> Tensor:
    """Latents (N, 4, h, w) of pictures (N, 3, H, W) uint8, kept in ``folder``."""
    file = folder / f"latents-{len(pictures)}.pt"
    if not file.exists():
        log.info("encoding %d pictures", len(pictures))
        model = model.to(memory_format=torch.channels_last)
        latents = torch.cat(
            [
                model.encode(batch.float().div(255).contiguous(memory_format=torch.channels_last)).contiguous()
                for batch in pictures.split(100)
            ]
        )
        save_atomically(latents, file)
    return torch.load(file, weights_only=True)


def is_pair(caption: str) -> bool:
    """Whether the caption names two objects."""
    return not {"and", "with"}.isdisjoint(caption.split())


def draw_rows(pairs: Tensor, singles: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Indices of a batch (BATCH,), in expectation a share of them from ``pairs``."""
    from_pairs = torch.rand(BATCH, generator=generator) < share
    pair_rows = pairs[torch.randint(len(pairs), (BATCH,), generator=generator)]
    single_rows = singles[torch.randint(len(singles), (BATCH,), generator=generator)]
    return torch.where(from_pairs, pair_rows, single_rows)


def train_unet(
    latents: Tensor,
    captions: list[str],
    folder: Path,
    start: tuple[dict[str, Tensor], LatentScale] | None = None,
    compiled: bool = False,
    bfloat16: bool = False,
    seed: int = 2,
) -> tuple[dict[str, Tensor], LatentScale]:
    """Train on encoder latents (N, 4, h, w) and their captions.

    Parameters
    ----------
    folder
        Where the checkpoints go.
    start
        Weights and latent scale to go on from with the last stretch; by default all stretches from the seed.
    compiled
        Let torch compile the network, which takes a C++ compiler and about a quarter less time.
    bfloat16
        Multiply in bfloat16; the weights stay float32. Faster only on processors that have bfloat16 instructions.
    """
    torch.manual_seed(seed)
    scale = start[1] if start else LatentScale.of(latents)
    data = scale(latents)
    ids = torch.tensor([token_ids(caption) for caption in captions])
    nothing = torch.tensor(token_ids(""))
    alphas, weights = alphas_cumprod(), loss_weights()
    model = UNet().to(memory_format=torch.channels_last)
    first = len(STRETCHES) if start else 1
    if start:
        model.load_state_dict(start[0])
    if compiled:
        model.compile()
    named_two = torch.tensor([is_pair(caption) for caption in captions])
    pairs, singles = named_two.nonzero()[:, 0], (~named_two).nonzero()[:, 0]

    def loss(generator: torch.Generator, share: float) -> Tensor:
        rows = draw_rows(pairs, singles, share, generator)
        batch_ids = ids[rows].clone()
        batch_ids[torch.rand(BATCH, generator=generator) < CAPTION_DROP] = nothing
        offsets = (torch.rand(1, generator=generator) + torch.arange(BATCH) / BATCH) % 1
        t = (offsets * TIMESTEPS).long()
        noise = torch.randn(data[rows].shape, generator=generator)
        a = alphas[t].view(-1, 1, 1, 1)
        noised = a.sqrt() * data[rows] + (1 - a).sqrt() * noise
        with torch.no_grad():
            context = encode_ids(batch_ids)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            predicted = model(noised.contiguous(memory_format=torch.channels_last), t, context).float()
        return (weights[t] * (predicted - noise).square().mean((1, 2, 3))).mean()

    for number, stretch in enumerate(STRETCHES[first - 1 :], first):
        average = fit(
            model,
            Muon(model, LEARNING_RATE, weight_decay=0.02),
            partial(loss, share=stretch.pairs),
            stretch.schedule,
            LEARNING_RATE,
            folder / f"unet-{number}.pt",
            seed + number,
        )
        model.load_state_dict(average)
    return average, scale
