"""Record softmaxed cross-attention of chosen UNet blocks during one evaluation, and stop the evaluation there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy.ldm.modules.attention import BasicTransformerBlock, SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel, Upsample

from ..attention import BlockAttention, attention_weights
from ..errors import UserError

BlockId = tuple[str, int]
"""A UNet block as the host names it: ("input", 4), ("middle", 0), ("output", 3)."""

_EXECUTION_ORDER = {"input": 0, "middle": 1, "output": 2}


class CaptureComplete(Exception):
    """Leaves the UNet once the last wanted block has been recorded; carries nothing and is no error."""


class AttentionCapture:
    """An ``attn2_patch`` that records attention and changes nothing.

    Being a list patch, it displaces no other pack's replacement of the attention. Query and key are computed with the
    block's own projections, including their weight patches.

    Parameters
    ----------
    unet : UNetModel
    blocks : sequence of BlockId
        Blocks to record, see `select_blocks`.
    truncate : bool, optional
        Raise `CaptureComplete` in the last of them instead of running the rest of the UNet.

    Attributes
    ----------
    recorded : list of BlockAttention
        In the order of execution.
    """

    def __init__(self, unet: UNetModel, blocks: Sequence[BlockId], truncate: bool = True) -> None:
        self.recorded: list[BlockAttention] = []
        self._transformers = {block: _transformer_blocks(unet, block) for block in blocks}
        self._last = max(blocks, key=_execution_order) if truncate else None

    def __call__(
        self, n: torch.Tensor, context: torch.Tensor, value: torch.Tensor, extra_options: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Record one transformer block.

        Parameters
        ----------
        n : Tensor (B, N, C)
            Input of the block's cross-attention.
        context : Tensor (B, T, 768)
            Encoded prompt.
        value : Tensor (B, T, 768)
        extra_options : dict
            The host's description of where in the UNet this is.

        Returns
        -------
        tuple of Tensor
            The first three arguments, unchanged.
        """
        block = extra_options.get("block")
        transformers = self._transformers.get(block) if block is not None else None
        if transformers is not None:
            index = extra_options.get("block_index", 0)
            attention = transformers[index].attn2
            weights = attention_weights(attention.to_q(n), attention.to_k(context), attention.heads)
            self.recorded.append(BlockAttention(weights, *_resolution(n.shape[1], extra_options)))
            if block == self._last and index == len(transformers) - 1:
                raise CaptureComplete
        return n, context, value


def select_blocks(unet: UNetModel, choice: str) -> tuple[BlockId, ...]:
    """Name the blocks that a choice stands for in this UNet.

    Parameters
    ----------
    unet : UNetModel
    choice : {"middle and first up", "middle", "first up", "all up"}
        "first up" is the first level of the decoder that has cross-attention: output blocks 3, 4 and 5 of Stable
        Diffusion 1.

    Returns
    -------
    tuple of BlockId
        Blocks with cross-attention, in the order of execution.

    Raises
    ------
    UserError
        When the UNet has no cross-attention there.
    """
    middle = [("middle", 0)] if _transformer_blocks(unet, ("middle", 0)) else []
    chosen = {
        "middle and first up": middle + _first_up(unet),
        "middle": middle,
        "first up": _first_up(unet),
        "all up": _all_up(unet),
    }[choice]
    if not chosen:
        raise UserError(f"This model has no cross-attention in the blocks {choice!r}; choose other `blocks`.")
    return tuple(chosen)


def _all_up(unet: UNetModel) -> list[BlockId]:
    return [("output", i) for i in range(len(unet.output_blocks)) if _transformer_blocks(unet, ("output", i))]


def _first_up(unet: UNetModel) -> list[BlockId]:
    found: list[BlockId] = []
    for index, layers in enumerate(unet.output_blocks):
        if _transformer_blocks(unet, ("output", index)):
            found.append(("output", index))
        if found and any(isinstance(layer, Upsample) for layer in layers.children()):
            break
    return found


def _transformer_blocks(unet: UNetModel, block: BlockId) -> list[BasicTransformerBlock]:
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


def _execution_order(block: BlockId) -> tuple[int, int]:
    return _EXECUTION_ORDER[block[0]], block[1]


def _resolution(cells: int, extra_options: dict[str, Any]) -> tuple[int, int]:
    shape = extra_options.get("activations_shape")
    if shape is not None and shape[-2] * shape[-1] == cells:
        return shape[-2], shape[-1]
    # Older hosts do not say, and some packs merge tokens: halve the latent's size until it fits.
    height, width = extra_options["original_shape"][-2:]
    while height * width > cells:
        height, width = (height + 1) // 2, (width + 1) // 2
    if height * width != cells:
        raise UserError(
            f"Layout guidance cannot tell the shape of a feature map of {cells} cells; switch off the node that "
            "changes the model's token count (token merging, tiling), or choose other `blocks`."
        )
    return height, width
