"""The miniature UNet: SD1's architecture and tensor names with two levels of 320 channels.

The inner level (8×8 for 16×16 latents) and the middle have attention, the outer one has none: the topology that the
method reads in SD1.5, where cross-attention is taken in the middle and in the first decoder level that has it. Time
embedding and feed-forward layers use part of their units; :func:`host_state_dict` fills them up, exactly, to the
tensors that the host loads as SD1.5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS, CONTEXT_WIDTH, HEADS = 320, 768, 8
TIME_WIDTH, HOST_TIME_WIDTH = 256, 1280
INNER_WIDTH, HOST_INNER_WIDTH = 512, 1280


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1)


def _silenced(layer: nn.Module) -> nn.Module:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class ResBlock(nn.Module):
    """SD1's residual block with time embedding."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(32, inputs), nn.SiLU(), _conv(inputs, CHANNELS))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(TIME_WIDTH, CHANNELS))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, CHANNELS), nn.SiLU(), nn.Identity(), _silenced(_conv(CHANNELS, CHANNELS))
        )
        self.skip_connection = nn.Identity() if inputs == CHANNELS else nn.Conv2d(inputs, CHANNELS, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        hidden = self.in_layers(x) + self.emb_layers(time)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(hidden)


class Attention(nn.Module):
    """Multi-head attention of tokens (B, N, 320) on a context (B, T, W)."""

    def __init__(self, context_width: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.to_k = nn.Linear(context_width, CHANNELS, bias=False)
        self.to_v = nn.Linear(context_width, CHANNELS, bias=False)
        self.to_out = nn.Sequential(nn.Linear(CHANNELS, CHANNELS))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        pairs = ((self.to_q, x), (self.to_k, context), (self.to_v, context))
        q, k, v = (layer(y).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer, y in pairs)
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(CHANNELS, 2 * INNER_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(), nn.Identity(), nn.Linear(INNER_WIDTH, CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn1, self.attn2 = Attention(CHANNELS), Attention(CONTEXT_WIDTH)
        self.ff = FeedForward()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(CHANNELS) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        normal = self.norm1(x)
        x = x + self.attn1(normal, normal)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, CHANNELS, eps=1e-6)
        self.proj_in = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock()])
        self.proj_out = _silenced(nn.Conv2d(CHANNELS, CHANNELS, 1))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        hidden = self.proj_in(self.norm(x))
        size = hidden.shape[-2:]
        hidden = self.transformer_blocks[0](hidden.flatten(2).transpose(1, 2), context)
        return x + self.proj_out(hidden.transpose(1, 2).unflatten(2, size))


class Downsample(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.op = _conv(CHANNELS, CHANNELS, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = _conv(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def timestep_embedding(timesteps: Tensor) -> Tensor:
    """SD1's sinusoidal embedding of timesteps (B,), (B, 320)."""
    half = CHANNELS // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half)
    angles = timesteps.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


class UNet(nn.Module):
    """Predicts the noise in latents (B, 4, H, W) at timesteps (B,) given a context (B, 77, 768)."""

    def __init__(self) -> None:
        super().__init__()
        blocks = nn.ModuleList
        self.time_embed = nn.Sequential(nn.Linear(CHANNELS, TIME_WIDTH), nn.SiLU(), nn.Linear(TIME_WIDTH, TIME_WIDTH))
        self.input_blocks = blocks(
            [
                blocks([_conv(4, CHANNELS)]),
                blocks([ResBlock(CHANNELS)]),
                blocks([Downsample()]),
                blocks([ResBlock(CHANNELS), SpatialTransformer()]),
            ]
        )
        self.middle_block = blocks([ResBlock(CHANNELS), SpatialTransformer(), ResBlock(CHANNELS)])
        self.output_blocks = blocks(
            [
                blocks([ResBlock(2 * CHANNELS), SpatialTransformer()]),
                blocks([ResBlock(2 * CHANNELS), SpatialTransformer(), Upsample()]),
                blocks([ResBlock(2 * CHANNELS)]),
                blocks([ResBlock(2 * CHANNELS)]),
            ]
        )
        self.out = nn.Sequential(nn.GroupNorm(32, CHANNELS), nn.SiLU(), _silenced(_conv(CHANNELS, 4)))

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        time = self.time_embed(timestep_embedding(timesteps))

        def run(layers: nn.ModuleList, h: Tensor) -> Tensor:
            for layer in layers:
                if isinstance(layer, ResBlock):
                    h = layer(h, time)
                elif isinstance(layer, SpatialTransformer):
                    h = layer(h, context)
                else:
                    h = layer(h)
            return h

        hidden, skips = x, []
        for layers in self.input_blocks:
            hidden = run(layers, hidden)
            skips.append(hidden)
        hidden = run(self.middle_block, hidden)
        for layers in self.output_blocks:
            hidden = run(layers, torch.cat([hidden, skips.pop()], 1))
        return self.out(hidden)


def _pad(tensor: Tensor, *shape: int) -> Tensor:
    padded = torch.zeros(*shape)
    padded[tuple(slice(n) for n in tensor.shape)] = tensor
    return padded


def _expand(name: str, tensor: Tensor) -> Tensor:
    """One tensor in the host's shape; the function computed stays the same."""
    weight = name.endswith(".weight")
    if name.startswith("time_embed"):
        width = HOST_TIME_WIDTH
        return (
            _pad(tensor, width, CHANNELS if name.startswith("time_embed.0") else width)
            if weight
            else _pad(tensor, width)
        )
    if "emb_layers" in name and weight:
        return _pad(tensor, CHANNELS, HOST_TIME_WIDTH)
    if "ff.net.0.proj" in name:
        shape = (HOST_INNER_WIDTH, *tensor.shape[1:])
        return torch.cat([_pad(half, *shape) for half in tensor.chunk(2)])
    if "ff.net.2" in name and weight:
        return _pad(tensor, CHANNELS, HOST_INNER_WIDTH)
    return tensor


def host_state_dict(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the host's names from ``UNet().state_dict()``."""
    return {name: _expand(name, tensor.float()) for name, tensor in weights.items()}
