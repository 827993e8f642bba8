"""Record softmaxed cross-attention of chosen UNet blocks, in an evaluation of our own or in the sampler's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_patcher
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ...basics.errors import UserError
from ...spatial.attention import BlockAttention, BlockMaps, attention_weights, combined, mean_logits, reduce_block
from ..checkpointing import Context, computed_twice
from ..unet_blocks import BlockId, transformer_blocks

_EXECUTION_ORDER = {"input": 0, "middle": 1, "output": 2}


class CaptureComplete(Exception):
    """Leaves the UNet once the last wanted block has been recorded; carries nothing and is no error."""


class _BlockPatch(ABC):
    """An ``attn2_patch`` that looks at the cross-attention of chosen blocks and changes nothing.

    Being a list patch, it displaces no other pack's replacement of the attention.

    Attributes
    ----------
    last : BasicTransformerBlock
        Of the chosen blocks, the last to be executed.
    """

    def __init__(self, unet: UNetModel, blocks: Sequence[BlockId]) -> None:
        self._transformers = {block: transformer_blocks(unet, block) for block in blocks}
        self.last = self._transformers[max(blocks, key=_execution_order)][-1]

    def __call__(
        self, n: torch.Tensor, context: torch.Tensor, value: torch.Tensor, extra_options: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Look at one transformer block, if it is of a chosen block, and return the first three arguments unchanged.

        `n` (B, N, C) is the input of its cross-attention, `context` (B, T, D) the encoded prompt, `extra_options` the
        host's description of where in the UNet this is.
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
    blocks : sequence of BlockId
        Blocks to record.
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
        self._truncate = truncate

    def _look(
        self, transformer: BasicTransformerBlock, n: torch.Tensor, context: torch.Tensor, extra_options: dict[str, Any]
    ) -> None:
        self.recorded.append(_block_attention(transformer, n, context, extra_options))
        if self._truncate and transformer is self.last:
            raise CaptureComplete


@dataclass(frozen=True)
class _Seen:
    """What the attention of a transformer block is computed from."""

    transformer: BasicTransformerBlock
    n: torch.Tensor
    context: torch.Tensor
    resolution: tuple[int, int]


class SparingCapture(_BlockPatch):
    """Records the attention to some tokens, in as little memory as a gradient can be taken with.

    While the network runs only the blocks' inputs are noted, so that it may compute its blocks twice
    (`checkpointing.gradient_checkpointing`); the attention is computed afterwards, and twice as well.

    Parameters
    ----------
    blocks : sequence of BlockId
        Blocks to record; the network is left in the last of them, which therefore cannot be computed twice.
    tokens : sequence of int
        Positions whose attention is wanted.
    """

    def __init__(self, unet: UNetModel, blocks: Sequence[BlockId], tokens: Sequence[int]) -> None:
        super().__init__(unet, blocks)
        self._tokens, self._seen, self._closed = list(tokens), list[_Seen](), False

    def recorded(self, recomputing: Context) -> list[BlockAttention]:
        """Return the attention in the order of execution, with columns for the wanted tokens alone.

        `recomputing` makes the context in which it is computed again.
        """
        found = self.close()
        return [
            BlockAttention(
                computed_twice(self._columns, recomputing, seen.transformer, seen.n, seen.context), *seen.resolution
            )
            for seen in found
        ]

    def close(self) -> list[_Seen]:
        """Note nothing more, not even what is computed again, and let go of what was noted.

        The graph of what was noted holds this capture, in the options of the blocks that compute again: a circle that
        would keep both for good where no backward follows.
        """
        self._closed = True
        found, self._seen = self._seen, []
        return found

    def _look(
        self, transformer: BasicTransformerBlock, n: torch.Tensor, context: torch.Tensor, extra_options: dict[str, Any]
    ) -> None:
        if self._closed:
            return
        self._seen.append(_Seen(transformer, n, context, map_resolution(n.shape[1], extra_options)))
        if transformer is self.last:
            raise CaptureComplete

    def _columns(self, transformer: BasicTransformerBlock, n: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        attention: Any = transformer.attn2
        weights = attention_weights(attention.to_q(n), attention.to_k(context), attention.heads)
        return weights[..., self._tokens]


@dataclass(frozen=True)
class TapTarget:
    """A conditioning whose attention is tapped.

    Parameters
    ----------
    tokens : int
        Length of its encoded prompt.
    spans : tuple of tuples of int
        Token positions of each phrase.
    content : tuple of int
        Those of all its tokens but start, end and padding.
    """

    tokens: int
    spans: tuple[tuple[int, ...], ...]
    content: tuple[int, ...]


class AttentionTap(_BlockPatch):
    """Records the attention of chosen conditionings while the sampler's own evaluation runs, and reduces it at once.

    The host evaluates several conditionings in one batch, or one in several calls; each has an id. What is evaluated
    again under the same id (perturbed-attention guidance and the like do so) is not recorded again. Where the host
    shows the model a part of the batch at a time (context windows), the parts are put together, and averaged where
    they overlap.

    Parameters
    ----------
    targets : mapping
        The host's id of each wanted conditioning to its `TapTarget`.
    """

    def __init__(self, unet: UNetModel, blocks: Sequence[BlockId], targets: Mapping[Any, TapTarget]) -> None:
        super().__init__(unet, blocks)
        self._targets = targets
        # By (id, block, number of the transformer block), the maps of each part of the batch.
        self._parts: dict[tuple[Any, BlockId, int], dict[_Part, BlockMaps]] = {}

    def maps(self) -> list[BlockMaps]:
        """Return what was recorded, for the whole batch; one per conditioning and transformer block."""
        return [_joined(parts) for parts in self._parts.values()]

    def _look(
        self, transformer: BasicTransformerBlock, n: torch.Tensor, context: torch.Tensor, extra_options: dict[str, Any]
    ) -> None:
        ids = extra_options.get("uuids", ())
        images = n.shape[0] // max(len(ids), 1)
        part = _part_of(extra_options.get("context_window"), images)
        for position, identity in enumerate(ids):
            target = self._targets.get(identity)
            if target is None:
                continue
            key = (identity, extra_options["block"], extra_options.get("block_index", 0))
            parts = self._parts.setdefault(key, {})
            if part in parts:
                continue
            # Frames that the host puts before a window do not count.
            rows = slice((position + 1) * images - len(part.images), (position + 1) * images)
            own = _without_repetition(context[rows], target.tokens)
            attention = _block_attention(transformer, n[rows], own, extra_options)
            parts[part] = reduce_block(attention, target.spans, target.content)


@dataclass(frozen=True)
class _Part:
    """Images of the batch that one evaluation shows the model, of how many."""

    images: tuple[int, ...]
    total: int


def _part_of(window: Any, images: int) -> _Part:
    if window is None:
        return _Part(tuple(range(images)), images)
    if window.dim != 0:
        raise UserError(
            "Record Attention cannot put the context windows of a picture's own parts together; set `dim` of Context "
            "Windows to 0, or leave that node out."
        )
    return _Part(tuple(window.index_list), window.total_frames)


def _joined(parts: Mapping[_Part, BlockMaps]) -> BlockMaps:
    (first, maps), *others = parts.items()
    if not others and len(first.images) == first.total:
        return maps
    rows = torch.tensor([image for part in parts for image in part.images], device=maps.values.device)
    count = rows.bincount(minlength=first.total).clamp_min(1)

    def mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        total = tensors[0].new_zeros(first.total, *tensors[0].shape[1:])
        total.index_add_(0, rows, torch.cat(list(tensors)))
        return total / count.view(-1, *[1] * (total.ndim - 1))

    return combined([maps, *(each for _, each in others)], maps.blocks, mean)


def with_attention_patch(model_options: Mapping[str, Any], patch: Callable) -> dict[str, Any]:
    """Return the host's model options, which stay as they are, with one more ``attn2_patch`` after those of others."""
    options = comfy.model_patcher.create_model_options_clone(dict(model_options))
    options.setdefault("transformer_options", {}).setdefault("patches", {}).setdefault("attn2_patch", []).append(patch)
    return options


def _block_attention(
    transformer: BasicTransformerBlock, n: torch.Tensor, context: torch.Tensor, extra_options: dict[str, Any]
) -> BlockAttention:
    # The block's own projections, so that weight patches count.
    attention: Any = transformer.attn2
    query, key, heads = attention.to_q(n), attention.to_k(context), attention.heads
    logits = mean_logits(query, key, heads)
    return BlockAttention(attention_weights(query, key, heads), *map_resolution(n.shape[1], extra_options), logits)


def _without_repetition(context: torch.Tensor, tokens: int) -> torch.Tensor:
    """Undo the host's padding of the shorter prompt of a batch, which repeats it and leaves the attention as it was."""
    length = context.shape[1]
    return context[:, :tokens] if length > tokens and length % tokens == 0 else context


def _execution_order(block: BlockId) -> tuple[int, int]:
    return _EXECUTION_ORDER[block[0]], block[1]


def map_resolution(cells: int, extra_options: Mapping[str, Any]) -> tuple[int, int]:
    """Return height and width of a feature map of so many cells, from the host's description of where it is."""
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
