"""The miniature autoencoder: TAESD's shape and tensor names, so that the host loads it as its own ``TAESD``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 64


def _conv(inputs: int, outputs: int, **kwargs) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **kwargs)


class Block(nn.Module):
    """TAESD's residual block; starts close to the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH))
        nn.init.normal_(self.conv[4].weight, std=0.2 * (WIDTH * 27) ** -0.5)
        nn.init.zeros_(self.conv[4].bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


class Clamp(nn.Module):
    """TAESD's soft limit on latents."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class Autoencoder(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1] ↔ latents (B, 4, H/8, W/8)."""

    def __init__(self) -> None:
        super().__init__()

        def down() -> nn.Conv2d:
            return _conv(WIDTH, WIDTH, stride=2, bias=False)

        def up() -> tuple[nn.Module, ...]:
            return nn.Upsample(scale_factor=2), _conv(WIDTH, WIDTH, bias=False)

        def three() -> list[nn.Module]:
            return [Block(), Block(), Block()]

        self.taesd_encoder = nn.Sequential(
            _conv(3, WIDTH), Block(), down(), *three(), down(), *three(), down(), *three(), _conv(WIDTH, 4)
        )
        self.taesd_decoder = nn.Sequential(
            Clamp(), _conv(4, WIDTH), nn.ReLU(), *three(), *up(), *three(), *up(), *three(), *up(), Block(),
            _conv(WIDTH, 3),
        )  # fmt: skip

    def encode(self, pictures: Tensor) -> Tensor:
        return self.taesd_encoder(pictures)

    def decode(self, latents: Tensor) -> Tensor:
        return self.taesd_decoder(latents)

    def forward(self, pictures: Tensor, noise: float) -> tuple[Tensor, Tensor]:
        """Pictures restored from noised latents, and the latents."""
        latents = self.encode(pictures)
        return self.decode(latents + noise * torch.randn_like(latents)), latents
