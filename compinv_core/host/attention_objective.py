"""The location loss of a latent, as a differentiable function that evaluates ComfyUI's model."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.model_patcher
import comfy.samplers
import torch

from ..attention import BlockAttention
from ..guidance import GuidanceConfig, layout_loss
from ..layout import Box, crop_box
from .capture import AttentionCapture, CaptureComplete, select_blocks
from .inference import InferenceTensorGuard, pytorch_attention_override

REGIONS_KEY = "compinv_regions"
"""Key of a conditioning's options under which its layout travels: a tuple of `Region`."""


@dataclass(frozen=True)
class Region:
    """One phrase of a prompt and its box.

    Parameters
    ----------
    phrase : str
    tokens : tuple of int
        Positions in the encoded prompt whose attention counts.
    box : (x0, y0, x1, y1)
        Fractions of the picture.
    """

    phrase: str
    tokens: tuple[int, ...]
    box: Box


class AttentionObjective:
    """Location loss (Eq. 9) of latents at a noise level.

    Runs only the conditional evaluation of the model, and only up to the last block whose attention counts. It goes
    through the host's own conditioning code, so LoRAs, hooks, areas, masks, ControlNets and patches act as in sampling.

    Parameters
    ----------
    denoiser : KSamplerX0Inpaint
        The host's denoiser of the running sampler.
    extra_args : mapping
        The sampler's ``extra_args``: model options and the inpainting mask.
    config : GuidanceConfig
    truncate : bool, optional
        Stop the UNet after the last block; the loss and its gradient do not depend on it.
    """

    def __init__(
        self, denoiser: Any, extra_args: Mapping[str, Any], config: GuidanceConfig, truncate: bool = True
    ) -> None:
        guider = denoiser.inner_model
        self._denoiser = denoiser
        self._model = guider.inner_model
        self._config = config
        self._truncate = truncate
        self._blocks = select_blocks(self._model.diffusion_model, config.blocks)
        self._denoise_mask = extra_args.get("denoise_mask")
        self._model_options = extra_args.get("model_options", {})
        self._conditions = [
            condition
            for name, conditions in guider.conds.items()
            for condition in conditions or ()
            if name != "negative" and condition.get(REGIONS_KEY)
        ]

    @property
    def has_regions(self) -> bool:
        """Whether any positive conditioning has a layout."""
        return bool(self._conditions)

    def percent_to_sigma(self, percent: float) -> float:
        """Noise level at a part of the model's schedule.

        Parameters
        ----------
        percent : float
            0 is full noise, 1 none.

        Returns
        -------
        float
        """
        return float(self._model.model_sampling.percent_to_sigma(percent))

    def __call__(self, latents: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Evaluate the loss. Gradients and normal (not inference) mode are the caller's.

        Parameters
        ----------
        latents : Tensor (B, 4, H, W)
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
            latents = self._blend_inpainted(latents, sigma)
            losses = [self._condition_loss(condition, latents, sigma) for condition in self._conditions]
            losses = [loss for loss in losses if loss is not None]
            if not losses:
                return latents.flatten(1).sum(dim=1) * 0.0
            return torch.stack(losses).mean(dim=0)

    def _condition_loss(
        self, condition: Mapping[str, Any], latents: torch.Tensor, sigma: torch.Tensor
    ) -> torch.Tensor | None:
        regions = _visible_regions(condition, latents)
        if not regions:
            return None
        recorded = self._record_attention(condition, latents, sigma)
        if not recorded:
            return None
        spans, boxes = [region.tokens for region in regions], [region.box for region in regions]
        return layout_loss(recorded, spans, boxes, self._config)

    def _record_attention(
        self, condition: Mapping[str, Any], latents: torch.Tensor, sigma: torch.Tensor
    ) -> list[BlockAttention]:
        capture = AttentionCapture(self._model.diffusion_model, self._blocks, self._truncate)
        condition = dict(condition)
        if "control" in condition:
            condition["control"] = _ConstantControl(condition["control"])
        with contextlib.suppress(CaptureComplete):
            comfy.samplers.calc_cond_batch(self._model, [[condition]], latents, sigma, self._options_with(capture))
        return capture.recorded

    def _options_with(self, capture: AttentionCapture) -> dict[str, Any]:
        options = comfy.model_patcher.create_model_options_clone(self._model_options)
        # The host evaluates the parts of a multi-GPU model under no_grad.
        options.pop("multigpu_clones", None)
        transformer_options = options.setdefault("transformer_options", {})
        transformer_options["optimized_attention_override"] = pytorch_attention_override
        transformer_options.setdefault("patches", {}).setdefault("attn2_patch", []).append(capture)
        return options

    def _blend_inpainted(self, latents: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Show the model what KSamplerX0Inpaint shows it: the noised original outside the inpainting mask."""
        mask = self._denoise_mask
        if mask is None:
            return latents
        if "denoise_mask_function" in self._model_options:
            extra = {"model": self._model, "sigmas": self._denoiser.sigmas}
            mask = self._model_options["denoise_mask_function"](sigma, mask, extra_options=extra)
        original = self._model.scale_latent_inpaint(
            x=latents.detach(), sigma=sigma, noise=self._denoiser.noise, latent_image=self._denoiser.latent_image
        )
        return latents * mask + original * (1.0 - mask)


class _ConstantControl:
    """A ControlNet that is evaluated as in sampling, but takes no part in the gradient."""

    def __init__(self, control: Any) -> None:
        self._control = control

    def __getattr__(self, name: str) -> Any:
        return getattr(self._control, name)

    def get_control(self, x_noisy: torch.Tensor, *args: Any, **kwargs: Any) -> dict[str, list] | None:
        with torch.no_grad():
            control = self._control.get_control(x_noisy.detach(), *args, **kwargs)
        if control is None:
            return None
        return {place: [_as_residual(value) for value in values] for place, values in control.items()}


class _Residual(torch.Tensor):
    """Makes ``features += residual`` an addition out of place.

    The host adds a ControlNet's residuals in place to features that autograd has saved, which backward refuses.
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is torch.Tensor.add_:
            func = torch.add
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


def _as_residual(value: Any) -> Any:
    return value.as_subclass(_Residual) if isinstance(value, torch.Tensor) else value


def _visible_regions(condition: Mapping[str, Any], latents: torch.Tensor) -> list[Region]:
    """Regions of a conditioning, in the coordinates of the area that it is restricted to."""
    regions = condition[REGIONS_KEY]
    if condition.get("area") is None:
        return list(regions)
    height, width = latents.shape[-2:]
    # The host's area: height, width, top, left, in cells of the latent.
    h, w, top, left = condition["area"][-4:]
    area = (left / width, top / height, min((left + w) / width, 1.0), min((top + h) / height, 1.0))
    cropped = ((region, crop_box(region.box, area)) for region in regions)
    return [Region(region.phrase, region.tokens, box) for region, box in cropped if box is not None]
