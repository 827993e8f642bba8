"""Cross-attention of a prompt's phrases, sharpened by the self-attention of the same blocks, in the sampler's passing.

A cell's map becomes the mean of what its self-attention sees of it: ``S·A``, S the self-attention (N, N), A the
cross-attention (N, P). So the map of a word spreads over the thing that it stands on, and leaves its surroundings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch.nn import functional as F

from ...spatial.attention import attention_weights, split_heads
from ..sampling.capture import map_resolution, with_attention_patch
from ..unet_blocks import BlockId, transformer_blocks

# Kernels of graphics cards take values of such widths.
_WIDTH = 8


class SharpenedMaps:
    """Sums the maps of one prompt over evaluations and blocks.

    Parameters
    ----------
    identities : set
        The host's ids of the prompt's conditionings.
    spans : sequence of sequences of int, length P
        Token positions of each phrase.
    size : (int, int)
        Height and width of the maps, in cells.
    """

    def __init__(
        self,
        unet: UNetModel,
        blocks: Sequence[BlockId],
        identities: set[Any],
        spans: Sequence[Sequence[int]],
        size: tuple[int, int],
    ) -> None:
        self._transformers = {block: transformer_blocks(unet, block) for block in blocks}
        self._identities, self._spans, self._size = identities, spans, size
        self._self_attention: tuple[torch.Tensor, torch.Tensor] | None = None
        self.total = torch.zeros(len(spans), *size)

    def added_to(self, model_options: Mapping[str, Any]) -> dict[str, Any]:
        """Return model options, which stay as they are, for an evaluation that is to be looked at."""
        options = with_attention_patch(model_options, self._see_cross_attention)
        options["transformer_options"]["patches"].setdefault("attn1_patch", []).append(self._see_self_attention)
        return options

    def _see_self_attention(self, n: torch.Tensor, context: Any, value: Any, extra_options: Mapping[str, Any]) -> tuple:
        if (found := self._found(n, extra_options)) is not None:
            attention, own = found[0].attn1, found[1]
            self._self_attention = attention.to_q(own), attention.to_k(own)
        return n, context, value

    def _see_cross_attention(
        self, n: torch.Tensor, context: torch.Tensor, value: Any, extra_options: Mapping[str, Any]
    ) -> tuple:
        if (found := self._found(n, extra_options)) is not None and self._self_attention is not None:
            attention, own, rows = found[0].attn2, found[1], found[2]
            weights = attention_weights(attention.to_q(own), attention.to_k(context[rows]), attention.heads).mean(1)
            maps = torch.stack([weights[..., list(span)].mean(-1) for span in self._spans], -1)
            height, width = map_resolution(n.shape[1], extra_options)
            sharp = _sharpened(maps, *self._self_attention, found[0].attn1.heads).mT.unflatten(-1, (height, width))
            self.total += F.interpolate(sharp, self._size, mode="bilinear").mean(0).to(self.total)
        return n, context, value

    def _found(self, n: torch.Tensor, extra_options: Mapping[str, Any]) -> tuple[Any, torch.Tensor, slice] | None:
        ids = extra_options.get("uuids", ())
        position = next((number for number, each in enumerate(ids) if each in self._identities), None)
        if extra_options.get("block") not in self._transformers or position is None:
            return None
        images = n.shape[0] // len(ids)
        rows = slice(position * images, (position + 1) * images)
        block = self._transformers[extra_options["block"]][extra_options.get("block_index", 0)]
        return block, n[rows], rows


def _sharpened(maps: torch.Tensor, query: torch.Tensor, key: torch.Tensor, heads: int) -> torch.Tensor:
    """S·A (B, N, P) of maps (B, N, P): the self-attention of queries and keys (B, N, heads * d), mean over heads."""
    query, key = (split_heads(each, heads).float() for each in (query, key))
    values = F.pad(maps, (0, -maps.shape[-1] % _WIDTH))[:, None].expand(-1, heads, -1, -1)
    return F.scaled_dot_product_attention(query, key, values).mean(1)[..., : maps.shape[-1]]
