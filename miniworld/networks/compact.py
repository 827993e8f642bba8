"""The miniature networks in the host without their zeros: the same function, in a third of the time.

The checkpoint holds dense tensors, since that is what the host loads as Stable Diffusion 1.5. Most of them is zeros:
grouped convolutions, unused units, and text layers 1 to 11. An experiment of many trainings leaves them out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint import load_unet
from .unet import UNet


def leave_out_zeros(network: nn.Module, text_model: nn.Module) -> None:
    """Replace the weights of the loaded miniature networks by what is trained of them, in place.

    Parameters
    ----------
    network
        The host's diffusion network, float32, as loaded from the assembled checkpoint.
    text_model
        The host's CLIP text model (with ``encoder.layers``); layers 1 to 11 are the identity.
    """
    for name, convolution in UNet().named_modules():
        if isinstance(convolution, nn.Conv2d):
            theirs: Any = network.get_submodule(name)
            theirs.groups, theirs.kernel_size, theirs.padding = (
                convolution.groups,
                convolution.kernel_size,
                convolution.padding,
            )
    for name, tensor in load_unet()[0].items():
        module, _, parameter = name.rpartition(".")
        # Rounded as the checkpoint is.
        value = nn.Parameter(tensor.half().float(), requires_grad=False)
        setattr(network.get_submodule(module), parameter, value)
    encoder: Any = text_model.get_submodule("encoder")
    encoder.layers = nn.ModuleList([encoder.layers[0]])


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
