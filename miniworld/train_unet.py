"""Train the miniature UNet on latents of rendered scenes and their captions."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch
from torch import Tensor

from .autoencoder import Autoencoder
from .diffusion import TIMESTEPS, LatentScale, alphas_cumprod, loss_weights
from .optimiser import Muon
from .text_encoder import encode_ids, token_ids
from .training import Schedule, fit
from .unet import UNet

log = logging.getLogger("compinv.miniworld")
BATCH = 64
SCHEDULE = Schedule(steps=1100, decay_from=450, warmup=100)
LEARNING_RATE = 1e-3
CAPTION_DROP = 0.1


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
        torch.save(latents, file.with_suffix(".part"))
        os.replace(file.with_suffix(".part"), file)
    return torch.load(file, weights_only=True)


def train_unet(
    latents: Tensor, captions: list[str], folder: Path, seed: int = 2
) -> tuple[dict[str, Tensor], LatentScale]:
    """Train on encoder latents (N, 4, h, w) and their captions; checkpoints go to ``folder``."""
    torch.manual_seed(seed)
    scale = LatentScale.of(latents)
    data = scale(latents)
    ids = torch.tensor([token_ids(caption) for caption in captions])
    nothing = torch.tensor(token_ids(""))
    alphas, weights = alphas_cumprod(), loss_weights()
    model = UNet().to(memory_format=torch.channels_last)

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(data), (BATCH,), generator=generator)
        batch_ids = ids[rows].clone()
        batch_ids[torch.rand(BATCH, generator=generator) < CAPTION_DROP] = nothing
        offsets = (torch.rand(1, generator=generator) + torch.arange(BATCH) / BATCH) % 1
        t = (offsets * TIMESTEPS).long()
        noise = torch.randn(data[rows].shape, generator=generator)
        a = alphas[t].view(-1, 1, 1, 1)
        noised = a.sqrt() * data[rows] + (1 - a).sqrt() * noise
        with torch.no_grad():
            context = encode_ids(batch_ids)
        predicted = model(noised.contiguous(memory_format=torch.channels_last), t, context)
        return (weights[t] * (predicted - noise).square().mean((1, 2, 3))).mean()

    average = fit(
        model, Muon(model, LEARNING_RATE, weight_decay=0.02), loss, SCHEDULE, LEARNING_RATE, folder / "unet.pt", seed
    )
    return average, scale
