"""The location loss of the sampler's own evaluation, without another one: what says whether a gradient is worth it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ...boxes.places import place_masks
from ...spatial.attention import BlockMaps
from ...spatial.guidance import location_loss
from ..sampling.capture import AttentionTap, TapTarget, with_attention_patch
from ..unet_blocks import BlockId
from .objective import Region, visible_regions


class PassingLoss:
    """Keeps the loss of the evaluation that began the last step, of the attention before any bias.

    Parameters
    ----------
    conditions : sequence of mapping
        The guider's prepared conditionings that have a layout.
    blocks : sequence of BlockId
        Whose attention counts.
    form : {"squared", "linear"}
        See `spatial.guidance.location_loss`.
    """

    def __init__(
        self, unet: UNetModel, conditions: Sequence[Mapping[str, Any]], blocks: Sequence[BlockId], form: str
    ) -> None:
        self._unet, self._conditions, self._blocks, self._form = unet, conditions, blocks, form
        self._loss: torch.Tensor | None = None

    def is_below(self, threshold: float) -> bool:
        """Say whether no image's loss is above a threshold; before the first evaluation that is not known."""
        # What is not finite is not below: guidance looks at it, and says so.
        return self._loss is not None and bool((self._loss <= threshold).all())

    def watch(
        self, model_options: Mapping[str, Any], size: tuple[int, int]
    ) -> tuple[dict[str, Any], Callable[[], None]]:
        """Return model options for an evaluation of latents of this size, and what is to be called after it."""
        watched = []
        if getattr(model_options.get("context_handler"), "dim", 0) != 0:
            # The model sees parts of a picture, so its loss is known by an evaluation of its own alone.
            return dict(model_options), lambda: None
        for condition in self._conditions:
            if regions := visible_regions(condition, *size):
                target = TapTarget(condition["cross_attn"].shape[1], tuple(region.tokens for region in regions), (1,))
                tap = AttentionTap(self._unet, self._blocks, {condition["uuid"]: target})
                model_options = with_attention_patch(model_options, tap)
                watched.append((tap, regions))

        def done() -> None:
            losses = [self._loss_of(maps, regions) for tap, regions in watched if (maps := tap.maps())]
            self._loss = torch.stack(losses).mean(0) if losses else None

        return dict(model_options), done

    def _loss_of(self, maps: Sequence[BlockMaps], regions: Sequence[Region]) -> torch.Tensor:
        values, places = [each.values for each in maps], [region.place for region in regions]
        masks = {size: place_masks(places, *size).to(values[0]) for size in {each.shape[-2:] for each in values}}
        return torch.stack([location_loss(each, masks[each.shape[-2:]], self._form) for each in values]).mean(0)
