"""The location loss of a latent, as a differentiable function that evaluates ComfyUI's model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ...basics.content import ByContent
from ...boxes.layout import Box
from ...boxes.places import Place, crop_place
from ...spatial.guidance import layout_loss
from ...spatial.settings import GuidanceConfig
from ..computing import held_weights
from ..inference import InferenceTensorGuard
from ..sampling.conditional_pass import ConditionalPass, positive_conditions
from ..unet_blocks import BlockId

REGIONS_KEY = "compinv_regions"
"""Key of a conditioning's options under which its layout travels: a tuple of `Region`."""


@dataclass(frozen=True, eq=False)
class Region(ByContent):
    """One phrase of a prompt and where it belongs.

    Parameters
    ----------
    tokens : tuple of int
        Positions in the encoded prompt whose attention counts.
    place : Place
        A box in fractions of the picture, or a mask.
    """

    phrase: str
    tokens: tuple[int, ...]
    place: Place


class AttentionObjective:
    """Location loss (Eq. 9) of latents at a noise level.

    Runs only the conditional evaluation of the model, and only up to the last block whose attention counts.

    Parameters
    ----------
    denoiser : KSamplerX0Inpaint
        The host's denoiser of the running sampler.
    extra_args : mapping
        The sampler's ``extra_args``: model options and the inpainting mask.
    blocks : sequence of BlockId
        Whose attention counts.
    truncate : bool, optional
        Stop the UNet after the last block; the loss and its gradient do not depend on it.
    sparing : bool, optional
        Compute the UNet's layers twice instead of keeping what is in between; the loss and its gradient are the same.

    Attributes
    ----------
    was_in_use : bool
        Whether a conditioning with a layout has been in use at any evaluation.
    conditions : list of mapping
        The guider's positive conditionings with a layout.
    """

    def __init__(
        self,
        denoiser: Any,
        extra_args: Mapping[str, Any],
        blocks: Sequence[BlockId],
        config: GuidanceConfig,
        truncate: bool = True,
        sparing: bool = False,
    ) -> None:
        self.was_in_use = False
        self._model = denoiser.inner_model.inner_model
        self._config = config
        self._pass = ConditionalPass(denoiser, extra_args, blocks, truncate)
        self.conditions = [
            condition for condition in positive_conditions(denoiser.inner_model) if condition.get(REGIONS_KEY)
        ]
        # The weights that hooks put in place are those of the conditioning that was evaluated last.
        hooked = any(condition.get("hooks") for condition in self.conditions)
        self._sparing = sparing and not (hooked and len(self.conditions) > 1)

    @contextmanager
    def open(self, device: torch.device) -> Iterator[None]:
        """Hold the model's weights as they are computed with, so that gradients can be taken in the block."""
        # Hooks of a conditioning put weights of their own in the place of those that are held.
        hooked = any(condition.get("hooks") for condition in self.conditions)
        with held_weights(self._model.diffusion_model, self._model.get_dtype_inference(), device, hooked):
            yield

    def percent_to_sigma(self, percent: float) -> float:
        """Return the noise level at a part of the model's schedule, from 0 (full noise) to 1 (none)."""
        return float(self._model.model_sampling.percent_to_sigma(percent))

    def __call__(self, latents: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Evaluate the loss. Gradients and normal (not inference) mode are the caller's.

        Parameters
        ----------
        latents : Tensor (B, C, H, W)
            x = x0 + σ·ε.
        sigma : Tensor (B,)
            σ; equal for all images.

        Returns
        -------
        Tensor (B,)
            Mean over the conditionings with a layout that are in use at this noise level; zeros where there is none.
        """
        with InferenceTensorGuard():
            sigma = sigma.detach().clone()
            latents = self._pass.blend_inpainted(latents, sigma)
            losses = [self._condition_loss(condition, latents, sigma) for condition in self.conditions]
            losses = [loss for loss in losses if loss is not None]
            if losses:
                self.was_in_use = True
            else:
                return latents.flatten(1).sum(dim=1) * 0.0
            return torch.stack(losses).mean(dim=0)

    def _condition_loss(
        self, condition: Mapping[str, Any], latents: torch.Tensor, sigma: torch.Tensor
    ) -> torch.Tensor | None:
        regions = visible_regions(condition, *latents.shape[-2:])
        if not regions:
            return None
        spans, places = [region.tokens for region in regions], [region.place for region in regions]
        if self._sparing:
            tokens = sorted({token for span in spans for token in span})
            recorded = self._pass.sparing_attention(condition, latents, sigma, tokens)
            spans = [tuple(tokens.index(token) for token in span) for span in spans]
        else:
            recorded = self._pass.attention(condition, latents, sigma)
        return layout_loss(recorded, spans, places, self._config) if recorded else None


def visible_regions(condition: Mapping[str, Any], height: int, width: int) -> list[Region]:
    """Regions of a conditioning, in the coordinates of the area that it is restricted to, of latents of this size."""
    regions = condition[REGIONS_KEY]
    if condition.get("area") is None:
        return list(regions)
    # The host's area: height, width, top, left, in cells of the latent.
    h, w, top, left = condition["area"][-4:]
    area = (left / width, top / height, min((left + w) / width, 1.0), min((top + h) / height, 1.0))
    return cropped_regions(regions, area)


def cropped_regions(regions: Sequence[Region], area: Box) -> list[Region]:
    """Regions in the coordinates of a part of the picture; those that do not meet it are left out."""
    cropped = ((region, crop_place(region.place, area)) for region in regions)
    return [Region(region.phrase, region.tokens, place) for region, place in cropped if place is not None]
