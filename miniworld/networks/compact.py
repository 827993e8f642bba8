"""The miniature networks in the host without their zeros: the same function in less time.

The checkpoint holds the full tensors of Stable Diffusion 1.5's text encoder and feed-forward layers, since that is what
the host loads. Most of them are zeros. An experiment of many trainings leaves them out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint import load_text_encoder, load_unet
from .text_encoder import HEADS, HOST_HEADS, TRAINED_LAYERS


def leave_out_zeros(network: nn.Module, text_model: nn.Module) -> None:
    """Replace the weights of the loaded miniature networks by what is trained of them, in place.

    Parameters
    ----------
    network
        The host's diffusion network, float32, as loaded from the assembled checkpoint.
    text_model
        The host's CLIP text model (with ``encoder.layers``).
    """
    _replace(network, load_unet()[0])
    encoder: Any = text_model.get_submodule("encoder")
    encoder.layers = nn.ModuleList(list(encoder.layers)[:TRAINED_LAYERS])
    for layer in encoder.layers:
        layer.self_attn.heads = layer.self_attn.heads * HEADS // HOST_HEADS
    layers = {name: tensor for name, tensor in load_text_encoder().items() if name.startswith("layers.")}
    _replace(encoder, layers)


def _replace(module: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, tensor in weights.items():
        owner, _, parameter = name.rpartition(".")
        # Rounded as the checkpoint is.
        value = nn.Parameter(tensor.half().float(), requires_grad=False)
        setattr(module.get_submodule(owner), parameter, value)


def multiply_in_bfloat16(network: nn.Module) -> None:
    """Let the network multiply in bfloat16, its weights and results staying float32: twice as fast where the processor
    has such instructions."""
    exactly = network.forward

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return exactly(*args, **kwargs).float()

    network.forward = forward


def text_model_of(clip: Any) -> nn.Module:
    """The text model inside the host's CLIP of Stable Diffusion 1."""
    return clip.cond_stage_model.clip_l.transformer.text_model
