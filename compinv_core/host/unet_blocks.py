"""The blocks of the host's UNet that have cross-attention, and which of them each choice of `blocks` stands for."""

from __future__ import annotations

from comfy.ldm.modules.attention import BasicTransformerBlock, SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel, Upsample

BlockId = tuple[str, int]
"""A UNet block as the host names it: ("input", 4), ("middle", 0), ("output", 3)."""


def transformer_blocks(unet: UNetModel, block: BlockId) -> list[BasicTransformerBlock]:
    """Return the transformer blocks of a UNet block, in the order of execution; empty where it has none."""
    kind, index = block
    if kind == "middle":
        layers = unet.middle_block
    else:
        layers = (unet.input_blocks if kind == "input" else unet.output_blocks)[index]
    if layers is None:
        return []
    spatial = [layer for layer in layers.children() if isinstance(layer, SpatialTransformer)]
    transformers = [transformer for layer in spatial for transformer in layer.transformer_blocks]
    return [transformer for transformer in transformers if isinstance(transformer, BasicTransformerBlock)]


def _middle(unet: UNetModel) -> list[BlockId]:
    return [("middle", 0)] if transformer_blocks(unet, ("middle", 0)) else []


def _all_up(unet: UNetModel) -> list[BlockId]:
    return [("output", i) for i in range(len(unet.output_blocks)) if transformer_blocks(unet, ("output", i))]


def _first_up(unet: UNetModel) -> list[BlockId]:
    """The first level of the decoder that has cross-attention: output blocks 3, 4 and 5 of Stable Diffusion 1."""
    found: list[BlockId] = []
    for index, layers in enumerate(unet.output_blocks):
        if transformer_blocks(unet, ("output", index)):
            found.append(("output", index))
        if found and any(isinstance(layer, Upsample) for layer in layers.children()):
            break
    return found


BLOCKS = {
    "middle and first up": lambda unet: _middle(unet) + _first_up(unet),
    "middle": _middle,
    "first up": _first_up,
    "all up": _all_up,
}
