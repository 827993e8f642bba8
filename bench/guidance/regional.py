"""Other ways of putting things into boxes, on the host: its area and mask conditioning, and attention couple."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

Box = tuple[float, float, float, float]
ALONE = "a photo of a {}"


def with_areas(bench: Any, prompt: str, phrases: Sequence[str], boxes: Sequence[Box]) -> tuple[Any, list]:
    """The prompt, and beside it each phrase in its box, by Conditioning (Set Area with Percentage)."""
    import nodes

    entries = bench.encode(prompt)
    for phrase, (x0, y0, x1, y1) in zip(phrases, boxes, strict=True):
        area = nodes.ConditioningSetAreaPercentage().append(
            bench.encode(ALONE.format(phrase)), x1 - x0, y1 - y0, x0, y0, 1.0
        )
        entries = entries + area[0]
    return bench.model, entries


def with_masks(bench: Any, prompt: str, phrases: Sequence[str], boxes: Sequence[Box]) -> tuple[Any, list]:
    """The same by Conditioning (Set Mask)."""
    import nodes
    from compinv_core.boxes.layout import box_masks

    side, entries = bench.habits.side, bench.encode(prompt)
    for phrase, mask in zip(phrases, box_masks(boxes, side, side), strict=True):
        entries = (
            entries + nodes.ConditioningSetMask().append(bench.encode(ALONE.format(phrase)), mask, "default", 1.0)[0]
        )
    return bench.model, entries


def coupled(bench: Any, prompt: str, phrases: Sequence[str], boxes: Sequence[Box]) -> tuple[Any, list]:
    """Attention couple: in every cross-attention, cells of a box see its phrase alone, all others the whole prompt."""
    from comfy.ldm.modules.attention import optimized_attention

    from compinv_core.boxes.layout import box_masks
    from compinv_core.host.sampling.capture import map_resolution
    from compinv_core.host.unet_blocks import transformer_blocks

    model, unet = bench.model.clone(), bench.model.model.diffusion_model
    contexts = [bench.encode(ALONE.format(phrase))[0][0] for phrase in phrases]

    def couple(attention: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: Any) -> torch.Tensor:
        masks = box_masks(boxes, *map_resolution(q.shape[1], options)).flatten(1)[..., None].to(q)
        out = optimized_attention(q, k, v, options["n_heads"])
        images = len(q) // len(options["cond_or_uncond"])
        for position, which in enumerate(options["cond_or_uncond"]):
            if which == 0:
                rows = slice(position * images, (position + 1) * images)
                queries, own = q[rows], out[rows].clone()
                for mask, context in zip(masks, contexts, strict=True):
                    context = context.expand(images, -1, -1).to(q)
                    part = optimized_attention(
                        queries, attention.to_k(context), attention.to_v(context), options["n_heads"]
                    )
                    own = own * (1 - mask) + part * mask
                out[rows] = own
        return out

    places = [("middle", 0), *(("input", n) for n in range(len(unet.input_blocks)))]
    for block in [*places, *(("output", n) for n in range(len(unet.output_blocks)))]:
        for index, transformer in enumerate(transformer_blocks(unet, block)):
            attention = transformer.attn2
            model.set_model_attn2_replace(
                lambda q, k, v, options, attention=attention: couple(attention, q, k, v, options), *block, index
            )
    return model, bench.encode(prompt)
