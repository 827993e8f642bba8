"""The miniature autoencoder: the shape of TAESD, so that the host loads it as its own ``TAESD``.

A third of TAESD's residual blocks are left out while training and stored as zeros: a TAESD block whose convolutions are
all zero is ``relu(x)``, which is what :class:`LeftOut` computes. Tensor names are the host's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 64
ENCODER_BLOCKS = (False, True, False, False, True, True, False, True, True, True)
"""Which residual blocks of the encoder are trained, from full resolution to 1/8."""
DECODER_BLOCKS = (True, True, True, True, True, True, True, True, True, False)
"""Which residual blocks of the decoder are trained, from 1/8 to full resolution."""


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


class LeftOut(nn.ReLU):
    """A block that is not trained."""


class Clamp(nn.Module):
    """TAESD's soft limit on latents."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def _block(trained: bool) -> nn.Module:
    return Block() if trained else LeftOut()


class Autoencoder(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1] ↔ latents (B, 4, H/8, W/8)."""

    def __init__(self) -> None:
        super().__init__()
        e = [_block(trained) for trained in ENCODER_BLOCKS]
        d = [_block(trained) for trained in DECODER_BLOCKS]

        def down() -> nn.Conv2d:
            return _conv(WIDTH, WIDTH, stride=2, bias=False)

        def up() -> tuple[nn.Module, nn.Module]:
            return nn.Upsample(scale_factor=2), _conv(WIDTH, WIDTH, bias=False)

        self.taesd_encoder = nn.Sequential(
            _conv(3, WIDTH), e[0], down(), *e[1:4], down(), *e[4:7], down(), *e[7:10], _conv(WIDTH, 4)
        )
        self.taesd_decoder = nn.Sequential(
            Clamp(), _conv(4, WIDTH), nn.ReLU(), *d[0:3], *up(), *d[3:6], *up(), *d[6:9], *up(), d[9], _conv(WIDTH, 3)
        )

    def encode(self, pictures: Tensor) -> Tensor:
        return self.taesd_encoder(pictures)

    def decode(self, latents: Tensor) -> Tensor:
        return self.taesd_decoder(latents)


def host_state_dict(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The full TAESD tensors, with zeros for the blocks left out.

    Parameters
    ----------
    weights
        ``Autoencoder().state_dict()``.
    """
    full = {name: tensor.float() for name, tensor in weights.items()}
    model = Autoencoder()
    for part in ("taesd_encoder", "taesd_decoder"):
        for index, layer in enumerate(getattr(model, part)):
            if isinstance(layer, LeftOut):
                for i in (0, 2, 4):
                    full[f"{part}.{index}.conv.{i}.weight"] = torch.zeros(WIDTH, WIDTH, 3, 3)
                    full[f"{part}.{index}.conv.{i}.bias"] = torch.zeros(WIDTH)
    return full
