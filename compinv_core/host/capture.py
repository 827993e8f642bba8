"""Record softmaxed cross-attention of chosen UNet blocks, in an evaluation of our own or in the sampler's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_patcher
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock, SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel, Upsample

from ..attention import BlockAttention, BlockMaps, attention_weights, reduce_block
from ..errors import UserError

BlockId = tuple[str, int]
"""A UNet block as the host names it: ("input", 4), ("middle", 0), ("output", 3)."""

_EXECUTION_ORDER = {"input": 0, "middle": 1, "output": 2}


class CaptureComplete(Exception):
    """Leaves the UNet once the last wanted block has been recorded; carries nothing and is no error."""


class _BlockPatch(ABC):
    """An ``attn2_patch`` that looks at the cross-attention of chosen blocks and changes nothing.

    Being a list patch, it displaces no other pack's replacement of the attention.

    Parameters
    ----------
    unet : UNetModel
    blocks : sequence of BlockId
        See `select_blocks`.
    """

    def __init__(self, unet: UNetModel, blocks: Sequence[BlockId]) -> None:
        self._transformers = {block: _transformer_blocks(unet, block) for block in blocks}

    def __call__(
        self, n: torch.Tensor, context: torch.Tensor, value: torch.Tensor, extra_options: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Look at one transformer block, if it is of a chosen block.

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
            self._look(transformers[extra_options.get("block_index", 0)], n, context, extra_options)
        return n, context, value

    @abstractmethod
    def _look(
        self, transformer: BasicTransformerBlock, n: torch.Tensor, context: torch.Tensor, extra_options: dict[str, Any]
    ) -> None: ...


class AttentionCapture(_BlockPatch):
    """Records the attention of all images of an evaluation.

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
        super().__init__(unet, blocks)
        self.recorded: list[BlockAttention] = []
        last = self._transformers[max(blocks, key=_execution_order)]
        self._last = last[-1] if truncate else None

    def _look(
        self, transformer: BasicTransformerBlock, n: torch.Tensor, context: torch.Tensor, extra_options: dict[str, Any]
    ) -> None:
        self.recorded.append(_block_attention(transformer, n, context, extra_options))
        if transformer is self._last:
            raise CaptureComplete


@dataclass(frozen=True)
class TapTarget:
    """A conditioning whose attention is tapped.

    Parameters
    ----------
    tokens : int
        Length of its encoded prompt.
    spans : tuple of tuples of int
        Token positions of each phrase.
    """

    tokens: int
    spans: tuple[tuple[int, ...], ...]


class AttentionTap(_BlockPatch):
    """Records the attention of chosen conditionings while the sampler's own evaluation runs, and reduces it at once.

    The host evaluates several conditionings in one batch, or one in several calls; each has an id. What is evaluated
    again under the same id (perturbed-attention guidance and the like do so) is not recorded again.

    Parameters
    ----------
    unet : UNetModel
    blocks : sequence of BlockId
    targets : mapping
        The host's id of each wanted conditioning to its `TapTarget`.

    Attributes
    ----------
    recorded : dict
        (id, block, number of the transformer block) to `BlockMaps`.
    """

    def __init__(self, unet: UNetModel, blocks: Sequence[BlockId], targets: Mapping[Any, TapTarget]) -> None:
        super().__init__(unet, blocks)
        self._targets = targets
        self.recorded: dict[tuple[Any, BlockId, int], BlockMaps] = {}

    def _look(
        self, transformer: BasicTransformerBlock, n: torch.Tensor, context: torch.Tensor, extra_options: dict[str, Any]
    ) -> None:
        ids = extra_options.get("uuids", ())
        for position, identity in enumerate(ids):
            target = self._targets.get(identity)
            key = (identity, extra_options["block"], extra_options.get("block_index", 0))
            if target is None or key in self.recorded:
                continue
            images = n.shape[0] // len(ids)
            rows = slice(position * images, (position + 1) * images)
            own = _without_repetition(context[rows], target.tokens)
            attention = _block_attention(transformer, n[rows], own, extra_options)
            self.recorded[key] = reduce_block(attention, target.spans)


def with_attention_patch(model_options: Mapping[str, Any], patch: _BlockPatch) -> dict[str, Any]:
    """Return model options with one more ``attn2_patch``, after those of others.

    Parameters
    ----------
    model_options : mapping
        The host's; not changed.
    patch : AttentionCapture or AttentionTap

    Returns
    -------
    dict
    """
    options = comfy.model_patcher.create_model_options_clone(dict(model_options))
    options.setdefault("transformer_options", {}).setdefault("patches", {}).setdefault("attn2_patch", []).append(patch)
    return options


def _block_attention(
    transformer: BasicTransformerBlock, n: torch.Tensor, context: torch.Tensor, extra_options: dict[str, Any]
) -> BlockAttention:
    # The block's own projections, so that weight patches count.
    attention: Any = transformer.attn2
    weights = attention_weights(attention.to_q(n), attention.to_k(context), attention.heads)
    return BlockAttention(weights, *_resolution(n.shape[1], extra_options))


def _without_repetition(context: torch.Tensor, tokens: int) -> torch.Tensor:
    """Undo the host's padding of the shorter prompt of a batch, which repeats it and leaves the attention as it was."""
    length = context.shape[1]
    return context[:, :tokens] if length > tokens and length % tokens == 0 else context


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
            f"The shape of a feature map of {cells} cells, whose attention is wanted, cannot be told; switch off the "
            "node that changes the model's token count (token merging, tiling), or choose other `blocks`."
        )
    return height, width
