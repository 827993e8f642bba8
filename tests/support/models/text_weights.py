"""Random weights of CLIP text encoders, under the names that checkpoints give them.

The widths, the heads and the vocabulary are the real ones. There may be fewer layers: the host reads its number of
layers from its own configuration, which a test changes (`checkpoints.text_options`), and not from the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

VOCABULARY = 49408
POSITIONS = 77


@dataclass(frozen=True)
class ClipShape:
    """Size of a text encoder: width D, width of its hidden layers, and layers."""

    width: int
    hidden: int
    layers: int


CLIP_L = ClipShape(768, 3072, 12)
CLIP_H = ClipShape(1024, 4096, 24)
CLIP_G = ClipShape(1280, 5120, 32)


def transformers_clip(shape: ClipShape, layers: int) -> dict[str, torch.Tensor]:
    """Draw an encoder in the naming of transformers, below ``text_model``, as SD1 and SDXL hold CLIP-L."""
    width = shape.width
    state = {
        "embeddings.token_embedding.weight": torch.randn(VOCABULARY, width) * 0.0137,
        "embeddings.position_embedding.weight": torch.randn(POSITIONS, width) * 0.01,
        "embeddings.position_ids": torch.arange(POSITIONS)[None],
    }
    norms = ["final_layer_norm"]
    linears = {}
    for layer in range(layers):
        prefix = f"encoder.layers.{layer}"
        norms += [f"{prefix}.layer_norm1", f"{prefix}.layer_norm2"]
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linears[f"{prefix}.self_attn.{name}"] = _linear(width, width)
        linears[f"{prefix}.mlp.fc1"] = _linear(shape.hidden, width)
        linears[f"{prefix}.mlp.fc2"] = _linear(width, shape.hidden)
    for name, (weight, bias) in linears.items():
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    for name in norms:
        state |= {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}
    return state


def open_clip(shape: ClipShape, layers: int) -> dict[str, torch.Tensor]:
    """Draw an encoder in the naming of OpenCLIP, as SDXL holds CLIP-G and Stable Diffusion 2 holds CLIP-H.

    The projection of the pooled output is (D, D), applied from the right.
    """
    width = shape.width
    state = {
        "token_embedding.weight": torch.randn(VOCABULARY, width) * 0.0137,
        "positional_embedding": torch.randn(POSITIONS, width) * 0.01,
        "text_projection": torch.randn(width, width) * width**-0.5,
        "logit_scale": torch.tensor(4.6055),
    }
    norms = ["ln_final"]
    for layer in range(layers):
        prefix = f"transformer.resblocks.{layer}"
        norms += [f"{prefix}.ln_1", f"{prefix}.ln_2"]
        weight, bias = _linear(3 * width, width)
        state |= {f"{prefix}.attn.in_proj_weight": weight, f"{prefix}.attn.in_proj_bias": bias}
        shapes = {
            "attn.out_proj": (width, width),
            "mlp.c_fc": (shape.hidden, width),
            "mlp.c_proj": (width, shape.hidden),
        }
        for name, (rows, columns) in shapes.items():
            weight, bias = _linear(rows, columns)
            state |= {f"{prefix}.{name}.weight": weight, f"{prefix}.{name}.bias": bias}
    for name in norms:
        state |= {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}
    return state


def deepened(state: dict[str, torch.Tensor], layer_prefix: str, layers: int, wanted: int) -> dict[str, torch.Tensor]:
    """Put layers of zeros, which change nothing, before the last one, so that there are as many as wanted.

    The output of the last layer and of the one before it, which the host takes, stay the same. The zeros are meta
    tensors; `checkpoints` writes them as holes.
    """
    moved = {}
    for key, value in state.items():
        head, _, name = key.removeprefix(layer_prefix).partition(".")
        if not key.startswith(layer_prefix):
            moved[key] = value
            continue
        copies: Sequence[int] = range(layers - 1, wanted - 1) if int(head) == layers - 1 else ()
        moved |= {f"{layer_prefix}{copy}.{name}": value.to("meta") for copy in copies}
        moved[f"{layer_prefix}{wanted - 1 if copies else head}.{name}"] = value
    return moved


def _linear(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, columns) * columns**-0.5, torch.zeros(rows)
