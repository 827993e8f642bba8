"""From softmaxed cross-attention of single blocks to one map per phrase (A_i in Eq. 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from ..basics.content import ByContent

HEAD_CHOICES = ("all", "second half")


@dataclass(frozen=True)
class BlockAttention:
    """Cross-attention of one transformer block.

    Parameters
    ----------
    weights : Tensor (B, heads, height * width, T)
        Softmaxed over T, the tokens of the prompt (77 per chunk).
    height, width : int
        Resolution of the block's feature map.
    logits : Tensor (B, T), optional
        See `mean_logits`.
    """

    weights: torch.Tensor
    height: int
    width: int
    logits: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class BlockMaps(ByContent):
    """One map per phrase at one resolution: the mean over a phrase's tokens, over heads, and over blocks.

    Parameters
    ----------
    values : Tensor (B, P, height, width)
    blocks : int
        How many transformer blocks the mean is over; their weight beside other resolutions.
    logit : Tensor (B, P), or None
        How similar the latents' queries are to the phrase's keys: the mean of ``q·k/√d`` over cells, heads and the
        phrase's tokens, less the same mean over all tokens of the prompt's content. Alone it would mean nothing, since
        the softmax does not see what all tokens have in common. It is the mean logarithm of how many times the
        attention of an average token of the prompt a token of the phrase has. None in records of earlier versions.
    mass : Tensor (B, P), or None
        The phrase's share of the attention: the sum over its tokens, mean over cells and heads.
    """

    values: torch.Tensor
    blocks: int = 1
    logit: torch.Tensor | None = None
    mass: torch.Tensor | None = None

    def mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> BlockMaps:
        """Return the maps and numbers after a change of each tensor."""
        numbers = (None if each is None else change(each) for each in (self.logit, self.mass))
        return BlockMaps(change(self.values), self.blocks, *numbers)


def attention_weights(query: torch.Tensor, key: torch.Tensor, heads: int) -> torch.Tensor:
    """Softmax of the scaled dot products, in float32 or better.

    Parameters
    ----------
    query : Tensor (B, N, heads * d)
    key : Tensor (B, T, heads * d)

    Returns
    -------
    Tensor (B, heads, N, T)
        float32, or float64 for float64 inputs.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    query, key = (split_heads(value.to(dtype), heads) for value in (query, key))
    return (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)


def mean_logits(query: torch.Tensor, key: torch.Tensor, heads: int) -> torch.Tensor:
    """Scaled dot products of the tokens' keys with the queries, mean over cells and heads.

    Parameters
    ----------
    query : Tensor (B, N, heads * d)
    key : Tensor (B, T, heads * d)

    Returns
    -------
    Tensor (B, T)
        float32, or float64 for float64 inputs.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    # The product is linear, so the mean query gives the mean product.
    query, key = query.to(dtype).mean(1, keepdim=True), key.to(dtype)
    return (query * key).sum(-1) / heads * (query.shape[-1] // heads) ** -0.5


def phrase_maps(block: BlockAttention, spans: Sequence[Sequence[int]], heads: str = "all") -> torch.Tensor:
    """Mean attention over each phrase's tokens, head by head.

    Parameters
    ----------
    spans : sequence of sequences of int, length P
        Token positions of every phrase; position 77 is the first of the second chunk.
    heads : {"all", "second half"}
        "second half" is what remains where code meant for a batch of unconditional and conditional images takes the
        second half of a tensor whose first axis holds the heads.

    Returns
    -------
    Tensor (B, heads, P, height, width)

    Raises
    ------
    ValueError
        When `heads` is unknown.
    """
    weights = block.weights
    if heads == "second half":
        weights = weights[:, weights.shape[1] // 2 :]
    elif heads != "all":
        raise ValueError(f"heads must be one of {HEAD_CHOICES}, not {heads!r}.")
    maps = torch.stack([weights[..., list(span)].mean(-1) for span in spans], dim=2)
    return maps.unflatten(-1, (block.height, block.width))


def reduce_block(
    block: BlockAttention, spans: Sequence[Sequence[int]], content: Sequence[int] | None = None
) -> BlockMaps:
    """Reduce one block's attention to what is worth keeping, a share of spans ÷ (heads · tokens) of its size.

    Parameters
    ----------
    spans : sequence of sequences of int, length P
        Token positions of every phrase.
    content : sequence of int, optional
        Those of all tokens of the prompt but start, end and padding; without them there is no `logit`.

    Returns
    -------
    BlockMaps
        `values` (B, P, height, width), mean over all heads.
    """
    values, logit = phrase_maps(block, spans).mean(1), None
    mass = values.mean((2, 3)) * values.new_tensor([len(span) for span in spans])
    if block.logits is not None and content is not None:
        logit = torch.stack([block.logits[:, list(span)].mean(1) for span in spans], dim=1)
        logit = logit - block.logits[:, list(content)].mean(1, keepdim=True)
    return BlockMaps(values, logit=logit, mass=mass)


def combined(
    maps: Sequence[BlockMaps], blocks: int, mean: Callable[[Sequence[torch.Tensor]], torch.Tensor]
) -> BlockMaps:
    """Return the mean of maps and their numbers, which stands for so many blocks; a number that one lacks is None."""

    def of(numbers: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
        known = [each for each in numbers if each is not None]
        return mean(known) if len(known) == len(numbers) else None

    logit, mass = of([each.logit for each in maps]), of([each.mass for each in maps])
    return BlockMaps(mean([each.values for each in maps]), blocks, logit, mass)


def maps_by_resolution(
    blocks: Iterable[BlockAttention], spans: Sequence[Sequence[int]], heads: str = "all"
) -> dict[tuple[int, int], torch.Tensor]:
    """Collect the phrase maps of all blocks, blocks of one resolution together.

    Parameters
    ----------
    spans : sequence of sequences of int, length P
    heads : {"all", "second half"}

    Returns
    -------
    dict from (height, width) to Tensor (B, blocks, heads, P, height, width)
    """
    grouped: dict[tuple[int, int], list[torch.Tensor]] = {}
    for block in blocks:
        grouped.setdefault((block.height, block.width), []).append(phrase_maps(block, spans, heads))
    return {resolution: torch.stack(maps, dim=1) for resolution, maps in grouped.items()}


def split_heads(value: torch.Tensor, heads: int) -> torch.Tensor:
    """Part queries, keys or values (B, N, heads * d) into (B, heads, N, d)."""
    return value.unflatten(-1, (heads, -1)).transpose(1, 2)
