"""Train UNet and text encoder together on latents of rendered pictures and their captions, for a given time."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..networks.autoencoder import Autoencoder
from ..networks.checkpoint import load_text_encoder, load_unet, save_small
from ..networks.diffusion import TIMESTEPS, LatentScale, alphas_cumprod, loss_weights
from ..networks.text_encoder import TextEncoder
from ..networks.unet import UNet
from ..world.words import CONTEXT, STORED, rows_of
from .optimiser import Muon
from .pictures import Store
from .plan import Clock, Plan, device, half_precision, set_rate

LEARNING_RATE, WEIGHT_DECAY, CAPTION_DROP, CONSTANT = 1.5e-3, 0.02, 0.1, 0.45
AVERAGE = 0.997
FURTHER = 0.25
"""Share of the learning rate for weights that were trained before."""
ENCODED = {"cuda": 512, "cpu": 32}
"""Pictures encoded at once, by device: 512 would take 7 GB of the computer's memory."""
ABSORBED, EVERY = 4096, 20
"""How many new pictures are taken in after so many steps."""
LATENT_CELLS = 16


class Generator(nn.Module):
    """The two networks that are trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.unet, self.text = UNet(), TextEncoder()

    @classmethod
    def stored(cls) -> tuple[Generator, LatentScale]:
        """The networks in the repository."""
        generator, (unet, scale) = cls(), load_unet()
        generator.unet.load_state_dict(unet)
        generator.text.load_state_dict(load_text_encoder())
        return generator, scale


class GrowingLatents:
    """Latents and captions of the rendered pictures on the device, more and more of them."""

    def __init__(self, store: Store, autoencoder: Autoencoder) -> None:
        self.store, self.autoencoder, self.batch = store, autoencoder, ENCODED[device().type]
        most = store["pictures"].shape[0] * store["pictures"].shape[1]
        self.taken, self.count = [0] * len(store.done), 0
        self.latents = torch.empty(most, 4, LATENT_CELLS, LATENT_CELLS, dtype=torch.float16, device=device())
        self.captions = torch.empty(most, STORED, dtype=torch.int16, device=device())

    @torch.no_grad()
    def absorb(self, most: int) -> None:
        """Encode up to so many more pictures."""
        each = max(1, most // len(self.taken))
        for renderer, there in enumerate(self.store.done.tolist()):
            first, last = self.taken[renderer], min(there, self.taken[renderer] + each)
            self.taken[renderer] = last
            wanted = first + np.nonzero(~self.store["for_judge"][renderer, first:last])[0]
            for i in range(0, len(wanted), self.batch):
                self._encode(renderer, wanted[i : i + self.batch])

    def _encode(self, renderer: int, which: np.ndarray) -> None:
        # Batches of one size, for which convolutions have to be chosen only once.
        pictures = torch.zeros(self.batch, *self.store["pictures"].shape[2:], dtype=torch.uint8)
        pictures[: len(which)] = torch.from_numpy(self.store["pictures"][renderer, which])
        captions = self.store["captions"][renderer, which].astype(np.int16)
        with half_precision():
            latents = self.autoencoder.encode(pictures.to(device()).permute(0, 3, 1, 2).float().div(255))
        rows = slice(self.count, self.count + len(which))
        self.latents[rows] = latents[: len(which)].half()
        self.captions[rows] = torch.from_numpy(captions).to(device())
        self.count += len(which)


def padded(rows: Tensor) -> Tensor:
    """Rows (B, STORED) as (B, 77) int64, filled up with the end token."""
    full = torch.ones(len(rows), CONTEXT, dtype=torch.int64, device=rows.device)
    full[:, : rows.shape[1]] = rows
    return full


def training_loss(
    unet: Callable[..., Tensor], text: TextEncoder, clean: Tensor, rows: Tensor, schedule: tuple[Tensor, Tensor]
) -> Tensor:
    """Noise-prediction loss with min-SNR weights.

    Parameters
    ----------
    clean
        Scaled latents (B, 4, 16, 16).
    rows
        Captions (B, 77).
    schedule
        ``alphas_cumprod()`` and ``loss_weights()``.
    """
    alphas, weights = schedule
    n = len(clean)
    spread = (torch.rand(1, device=clean.device) + torch.arange(n, device=clean.device) / n) % 1
    t = (spread * TIMESTEPS).long().clamp(max=TIMESTEPS - 1)
    noise = torch.randn_like(clean)
    a = alphas[t].view(-1, 1, 1, 1)
    noised = (a.sqrt() * clean + (1 - a).sqrt() * noise).contiguous(memory_format=torch.channels_last)
    with half_precision():
        predicted = unet(noised, t, text(rows))
    return (weights[t] * (predicted.float() - noise).square().mean((1, 2, 3))).mean()


class Compilation:
    """The UNet as a compiled function, made in a thread; the plain network until that is done."""

    def __init__(self, model: Generator, plan: Plan) -> None:
        self.schedule = alphas_cumprod().to(device()), loss_weights().to(device())
        self.forward: Callable[..., Tensor] = model.unet
        self._model, self._plan = model, plan
        self._thread = threading.Thread(target=self._compile, daemon=True)
        if device().type == "cuda":
            self._thread.start()

    def wait(self, seconds: float) -> None:
        if self._thread.ident is not None:
            self._thread.join(max(0.0, seconds))

    def _compile(self) -> None:
        begun, n = time.time(), self._plan.batch
        try:
            compiled = torch.compile(self._model.unet, dynamic=False)
            clean = torch.randn(n, 4, LATENT_CELLS, LATENT_CELLS, device=device())
            rows = torch.zeros(n, CONTEXT, dtype=torch.int64, device=device())
            loss = training_loss(compiled, self._model.text, clean, rows, self.schedule)
            torch.autograd.grad(loss, list(self._model.parameters()), allow_unused=True)
            torch.cuda.synchronize()
        except RuntimeError as error:
            self._plan.say("the UNet is not compiled, which only takes longer: %s", str(error)[:300])
            return
        self.forward = compiled
        self._plan.say("the UNet is compiled, in %.0f s", time.time() - begun)


def store_generator(weights: dict[str, Tensor], scale: LatentScale, folder: Path) -> None:
    """Write UNet and text encoder."""
    about = {"latent_shift": repr(scale.shift), "latent_scale": repr(scale.scale)}
    for part, name in (("unet", "unet"), ("text", "text-encoder")):
        own = {k.removeprefix(f"{part}."): v.cpu() for k, v in weights.items() if k.startswith(f"{part}.")}
        save_small(own, folder / f"{name}.safetensors", about if part == "unet" else None)


def train_generator(
    model: Generator,
    compilation: Compilation,
    data: GrowingLatents,
    plan: Plan,
    scale: LatentScale | None = None,
    words_only: bool = False,
) -> None:
    """Train until the plan's end and write the averaged weights, a first time halfway.

    Parameters
    ----------
    scale
        That of weights which were trained before; by default it follows from the latents.
    words_only
        Train what reads the words: the text encoder and the cross-attention.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not words_only or name.startswith("text.") or ".attn2." in name)
    data.absorb(data.store.count())
    trained_before = scale is not None
    scale = scale or LatentScale.of(data.latents[: data.count].float())
    nothing = torch.tensor(rows_of(""), device=device())
    rate = LEARNING_RATE * (FURTHER if trained_before else 1.0)
    optimiser = Muon(model, rate, weight_decay=WEIGHT_DECAY)
    average = copy.deepcopy(model).requires_grad_(False)
    mine, averaged = list(model.parameters()), list(average.parameters())
    clock, step, running, halfway = Clock(plan.seconds - plan.elapsed()), 0, None, False
    while clock.progress < 1:
        if step % EVERY == EVERY - 1:
            data.absorb(ABSORBED)
        set_rate(optimiser, rate * clock.rate(step, CONSTANT))
        chosen = torch.randint(data.count, (plan.batch,), device=device())
        rows = padded(data.captions[chosen].long())
        rows = torch.where(torch.rand(plan.batch, 1, device=device()) < CAPTION_DROP, nothing, rows)
        loss = training_loss(
            compilation.forward, model.text, scale(data.latents[chosen].float()), rows, compilation.schedule
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        torch._foreach_lerp_(averaged, mine, 1 - min(AVERAGE, (1 + step) / (10 + step)))
        running = loss.detach() if running is None else running.lerp_(loss.detach(), 0.05)
        if step % 4 == 0 and device().type == "cuda":
            # Otherwise the clock would run far ahead of the card.
            torch.cuda.synchronize()
        if step % 100 == 0:
            plan.say("generator: step %d, %d latents, loss %.4f", step, data.count, running.item())
        if not halfway and clock.progress > 0.5:
            store_generator(average.state_dict(), scale, plan.into)
            halfway = True
        step += 1
    store_generator(average.state_dict(), scale, plan.into)
    plan.say("generator: %d steps of %d pictures", step, plan.batch)
