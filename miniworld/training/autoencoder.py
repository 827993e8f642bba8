"""Train the miniature autoencoder on crops of rendered scenes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..networks.autoencoder import Autoencoder
from .fitting import Schedule, fit
from .optimiser import Muon

CROP = 64
BATCH = 16
SCHEDULE = Schedule(steps=1600, decay_from=800, warmup=50)
LEARNING_RATE = 2.5e-3
LATENT_NOISE = 0.05
POLISH_NOISE = 0.02
POLISH_SCHEDULE = Schedule(steps=2500, decay_from=500, warmup=20)
POLISH_RATE = 1.2e-3


def _edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def reconstruction_loss(restored: Tensor, pictures: Tensor) -> Tensor:
    """L1 + 2·L2 + ½·L1 of the edges; all (B, 3, H, W)."""
    error = restored - pictures
    edges = sum(e.abs().mean() for e in _edges(error))
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * edges


def polish_loss(restored: Tensor, pictures: Tensor) -> Tensor:
    """L2, which is what PSNR counts, and a little L1 to keep the edges; all (B, 3, H, W)."""
    error = restored - pictures
    return error.square().mean() + 0.02 * error.abs().mean()


def latent_penalty(latents: Tensor) -> Tensor:
    """Keeps each latent channel near zero mean and unit spread."""
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    return 0.01 * (mean.square().mean() + spread.log().square().mean())


def _crops(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """A batch of random crops (BATCH, 3, CROP, CROP) in [0, 1]."""
    room = pictures.shape[-1] - CROP
    rows = torch.randint(len(pictures), (BATCH,), generator=generator)
    corners = torch.randint(room + 1, (BATCH, 2), generator=generator)
    batch = torch.stack(
        [pictures[i, :, y : y + CROP, x : x + CROP] for i, (y, x) in zip(rows.tolist(), corners.tolist(), strict=True)]
    )
    return batch.float().div(255).contiguous(memory_format=torch.channels_last)


def train_autoencoder(pictures: Tensor, folder: Path, seed: int = 1) -> dict[str, Tensor]:
    """Train on pictures (N, 3, SIDE, SIDE) uint8; checkpoints go to ``folder``."""
    torch.manual_seed(seed)
    model = Autoencoder().to(memory_format=torch.channels_last)

    def loss(generator: torch.Generator) -> Tensor:
        batch = _crops(pictures, generator)
        latents = model.encode(batch)
        noise = torch.randn(latents.shape, generator=generator)
        return reconstruction_loss(model.decode(latents + LATENT_NOISE * noise), batch) + latent_penalty(latents)

    return fit(
        model,
        Muon(model, LEARNING_RATE),
        loss,
        SCHEDULE,
        LEARNING_RATE,
        folder / "autoencoder.pt",
        seed,
        average_decay=0.995,
    )


def polish_decoder(
    weights: dict[str, Tensor], pictures: Tensor, folder: Path, bfloat16: bool = False, seed: int = 4
) -> dict[str, Tensor]:
    """Train the decoder further with the encoder as it is, so that latents made with it stay valid.

    Blocks that the weights lack start near the identity.
    """
    torch.manual_seed(seed)
    model = Autoencoder().to(memory_format=torch.channels_last)
    model.load_state_dict(weights, strict=False)
    model.taesd_encoder.requires_grad_(False)

    def loss(generator: torch.Generator) -> Tensor:
        batch = _crops(pictures, generator)
        latents = model.encode(batch)
        noise = torch.randn(latents.shape, generator=generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            restored = model.decode(latents + POLISH_NOISE * noise)
        return polish_loss(restored.float(), batch)

    return fit(
        model,
        Muon(model.taesd_decoder, POLISH_RATE),
        loss,
        POLISH_SCHEDULE,
        POLISH_RATE,
        folder / "decoder.pt",
        seed,
        average_decay=0.995,
    )


@torch.no_grad()
def psnr(model: Autoencoder, pictures: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of whole pictures (N, 3, SIDE, SIDE) uint8 after the autoencoder."""
    squared = []
    for batch in pictures.split(32):
        x = batch.float().div(255)
        squared.append(F.mse_loss(model.decode(model.encode(x)).clamp(0, 1), x, reduction="none").mean((1, 2, 3)))
    return float(-10 * torch.cat(squared).mean().log10())
