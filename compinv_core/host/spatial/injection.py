"""Injection on the host: a bias on the cross-attention of the sampler's own evaluations."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ...boxes.places import place_masks
from ...spatial.injection import logit_ranges, noise_weight, region_signs
from ..sampling.capture import map_resolution, with_attention_patch
from ..unet_blocks import BlockId
from .objective import Region, cropped_regions, visible_regions


class Injection:
    """Adds the bias to the evaluations of one sampling run.

    An ``attn2_patch`` says that cross-attention comes next, and an override of the attention function adds the bias as
    an additive mask, whichever kernel the host has chosen; an override of another pack is called with it.

    Parameters
    ----------
    conditions : sequence of mapping
        The guider's prepared conditionings that have a layout.
    blocks : sequence of BlockId
        Whose cross-attention gets the bias.
    strength : float
        s; see `spatial.injection`.
    say : callable
        Takes a sentence for the person at the graph.

    Attributes
    ----------
    was_in_use : bool
        Whether any attention has had a bias.
    """

    def __init__(
        self,
        conditions: Sequence[Mapping[str, Any]],
        blocks: Sequence[BlockId],
        strength: float,
        say: Callable[[str], object],
    ) -> None:
        self.was_in_use = False
        self._conditions = {condition["uuid"]: condition for condition in conditions}
        self._blocks, self._strength = frozenset(blocks), strength
        self._say = say
        self._gain = 0.0
        self._size = (0, 0)
        self._signs: dict[Any, torch.Tensor] = {}
        # The host may evaluate the parts of a batch on several cards at the same time.
        self._here = threading.local()
        self._displaced = False

    def added_to(self, model_options: Mapping[str, Any], sigma: float, size: tuple[int, int]) -> dict[str, Any]:
        """Return model options, which stay as they are, for an evaluation at σ of latents of a height and width."""
        self._gain, self._size = self._strength * noise_weight(sigma), size
        options = with_attention_patch(model_options, self._announce)
        inner = options["transformer_options"]
        other = inner.get("optimized_attention_override", _as_it_is)

        def attend(func: Callable, q: Any, k: Any, v: Any, heads: int, mask: Any = None, *args: Any, **kwargs: Any):
            bias = self._bias(q, k, heads, kwargs.get("transformer_options") or {})
            if bias is not None:
                mask = bias if mask is None else mask + bias
            return other(func, q, k, v, heads, mask, *args, **kwargs)

        inner["optimized_attention_override"] = attend
        return options

    def _announce(self, n: torch.Tensor, context: Any, value: Any, extra_options: Mapping[str, Any]) -> tuple:
        self._note_displaced()
        if extra_options.get("block") in self._blocks:
            self._here.place = _place(extra_options)
        return n, context, value

    def _note_displaced(self) -> None:
        if getattr(self._here, "place", None) is not None and not self._displaced:
            self._displaced = True
            self._say(
                "another node replaces cross-attention, so nothing is injected there; choose the method gradient."
            )
        self._here.place = None

    def _bias(
        self, query: torch.Tensor, key: torch.Tensor, heads: int, options: Mapping[str, Any]
    ) -> torch.Tensor | None:
        """The bias (B, heads, N, T), zero for other conditionings; None where there is none at all."""
        if getattr(self._here, "place", None) != _place(options):
            self._note_displaced()
            return None
        self._here.place = None
        ids = options.get("uuids", ())
        if not any(identity in self._conditions for identity in ids):
            return None
        images = query.shape[0] // len(ids)
        bias = query.new_zeros(query.shape[0], heads, query.shape[1], key.shape[1])
        for position, identity in enumerate(ids):
            if identity in self._conditions:
                rows = slice(position * images, (position + 1) * images)
                signs = self._signs_for(identity, query, key.shape[1], options)
                bias[rows] = self._gain * logit_ranges(query[rows], key[rows], heads) * signs
        self.was_in_use = True
        return bias

    def _signs_for(self, identity: Any, query: torch.Tensor, tokens: int, options: Mapping[str, Any]) -> torch.Tensor:
        window = _part_of_picture(options.get("context_window"))
        resolution = map_resolution(query.shape[1], options)
        key = (identity, window, resolution, tokens, self._size, query.device)
        if key not in self._signs:
            regions = visible_regions(self._conditions[identity], *self._size)
            if window is not None:
                regions = cropped_regions(regions, window)
            own = self._conditions[identity]["cross_attn"].shape[1]
            self._signs[key] = _signs(regions, resolution, own, tokens).to(query)
        return self._signs[key]


def _signs(regions: Sequence[Region], resolution: tuple[int, int], own: int, tokens: int) -> torch.Tensor:
    if not regions:
        return torch.zeros(1, 1)
    masks = place_masks([region.place for region in regions], *resolution)
    signs = region_signs([region.tokens for region in regions], masks, own)
    # The host repeats the shorter prompt of a batch; what other packs append has no region.
    if tokens % own == 0:
        return signs.repeat(1, tokens // own)
    return torch.nn.functional.pad(signs, (0, tokens - own))


def _part_of_picture(window: Any) -> tuple[float, float, float, float] | None:
    """The part of the picture that a context window over its rows or columns shows the model."""
    if window is None or window.dim not in (2, 3):
        return None
    start, stop = min(window.index_list) / window.total_frames, (max(window.index_list) + 1) / window.total_frames
    return (0.0, start, 1.0, stop) if window.dim == 2 else (start, 0.0, stop, 1.0)


def _place(options: Mapping[str, Any]) -> tuple[Any, int]:
    return options.get("block"), options.get("block_index", 0)


def _as_it_is(func: Callable, *args: Any, **kwargs: Any) -> torch.Tensor:
    return func(*args, **kwargs)
