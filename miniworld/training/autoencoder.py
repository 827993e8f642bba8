"""Train the miniature autoencoder on crops of rendered pictures, for a given time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..networks.autoencoder import Autoencoder
from ..networks.checkpoint import rounded, save_small
from .optimiser import Muon
from .pictures import Store, wait_until
from .plan import Clock, Plan, begin_process, device, half_precision, hand_over, set_rate

CROP, LEARNING_RATE, LATENT_NOISE, CONSTANT = 64, 2.5e-3, 0.03, 0.35
MOST_PICTURES, FIRST_PICTURES = 60_000, 5000
FILE = "autoencoder.pt"
"""What the other processes wait for, in the scratch folder."""


class GrowingPictures:
    """Rendered pictures on the device, uint8, more and more of them while rendering goes on."""

    def __init__(self, store: Store, most: int) -> None:
        self.store, self.most, self.taken = store, most, [0] * len(store.done)
        self.pictures = torch.empty(most, *store["pictures"].shape[2:], dtype=torch.uint8, device=device())
        self.count = 0

    def grow(self, by: int) -> None:
        each = max(1, by // len(self.taken))
        for renderer, there in enumerate(self.store.done.tolist()):
            first = self.taken[renderer]
            n = min(there - first, each, self.most - self.count)
            if n > 0:
                new = torch.from_numpy(self.store["pictures"][renderer, first : first + n].copy())
                self.pictures[self.count : self.count + n] = new.to(device())
                self.taken[renderer], self.count = first + n, self.count + n

    def crops(self, batch: int) -> Tensor:
        """Random crops (batch, 3, CROP, CROP) in [0, 1]."""
        rows = torch.randint(self.count, (batch, 1, 1), device=device())
        corner = torch.randint(self.pictures.shape[1] - CROP + 1, (2, batch, 1), device=device())
        line = torch.arange(CROP, device=device())
        y, x = (corner[0] + line)[:, :, None], (corner[1] + line)[:, None, :]
        return self.pictures[rows, y, x].permute(0, 3, 1, 2).float().div_(255)


def reconstruction_loss(restored: Tensor, pictures: Tensor) -> Tensor:
    """L1 + 4·L2 + L1 of the differences between neighbours at three scales; all (B, 3, H, W)."""
    error = restored - pictures
    loss = error.abs().mean() + 4 * error.square().mean()
    for scale in (1, 2, 4):
        e = F.avg_pool2d(error, scale) if scale > 1 else error
        loss = loss + 0.3 * ((e[..., 1:] - e[..., :-1]).abs().mean() + (e[..., 1:, :] - e[..., :-1, :]).abs().mean())
    return loss


def latent_penalty(latents: Tensor) -> Tensor:
    """Keeps each latent channel near zero mean and unit spread."""
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    return 0.01 * (mean.square().mean() + spread.log().square().mean())


@torch.no_grad()
def psnr(model: Autoencoder, pictures: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of whole pictures (N, 3, SIDE, SIDE) uint8 after the autoencoder."""
    squared = []
    for batch in pictures.split(32):
        x = batch.float().div(255)
        squared.append(F.mse_loss(model.decode(model.encode(x)).clamp(0, 1), x, reduction="none").mean((1, 2, 3)))
    return float(-10 * torch.cat(squared).mean().log10())


def ready(weights: dict[str, Tensor]) -> Autoencoder:
    """An autoencoder of these weights on the device, to be used."""
    model = Autoencoder()
    model.load_state_dict(weights)
    return model.to(device(), memory_format=torch.channels_last).eval().requires_grad_(False)


def train_autoencoder(plan: Plan, start: dict[str, Tensor] | None, seed: int = 1) -> None:
    """Train until the plan's time for it is over, and write the weights; a process of its own."""
    begin_process(seed)
    store = Store(plan)
    wait_until(lambda: store.count() >= min(FIRST_PICTURES, plan.capacity // 2), plan.patience, "picture")
    model = Autoencoder()
    if start is not None:
        model.load_state_dict(start)
    model = model.to(device(), memory_format=torch.channels_last)
    pool = GrowingPictures(store, min(MOST_PICTURES, plan.capacity * plan.renderers))
    pool.grow(FIRST_PICTURES)
    optimiser, clock, step = Muon(model, LEARNING_RATE), Clock(plan.AUTOENCODER * plan.seconds), 0
    while clock.progress < 1:
        if step % 15 == 0:
            pool.grow(4000)
        set_rate(optimiser, LEARNING_RATE * clock.rate(step, CONSTANT))
        batch = pool.crops(max(2, plan.batch // 2)).contiguous(memory_format=torch.channels_last)
        with half_precision():
            restored, latents = model(batch, LATENT_NOISE)
        loss = reconstruction_loss(restored.float(), batch) + latent_penalty(latents.float())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % 100 == 0:
            plan.say("autoencoder: step %d, %d pictures, loss %.4f", step, pool.count, loss.item())
        step += 1
    weights = {name: tensor.detach().float().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_small(weights, plan.into / "autoencoder.safetensors")
    hand_over(rounded(weights), plan.scratch / FILE)
