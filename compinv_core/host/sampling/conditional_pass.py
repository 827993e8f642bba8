"""One conditioning evaluated by ComfyUI's model, only as far as the cross-attention of chosen blocks needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import comfy.samplers
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock

from ...basics.errors import UserError
from ...spatial.attention import BlockAttention
from ..checkpointing import gradient_checkpointing
from ..inference import InferenceTensorGuard, pytorch_attention_override
from ..unet_blocks import BlockId
from .capture import AttentionCapture, CaptureComplete, SparingCapture, with_attention_patch

TWICE = (ResBlock, BasicTransformerBlock)
"""What computes twice: single layers of a transformer, for up to ten of them are a block of Stable Diffusion XL."""


def positive_conditions(guider: Any) -> list[Mapping[str, Any]]:
    """Return the prepared conditionings of a running guider (CFGGuider) that the picture is drawn towards."""
    return [
        condition for name, conditions in guider.conds.items() for condition in conditions or () if name != "negative"
    ]


class ConditionalPass:
    """Evaluates the model beside a running sampler, to see the attention.

    It goes through the host's own conditioning code, so LoRAs, hooks, areas, masks, ControlNets and patches act as in
    sampling.

    Parameters
    ----------
    denoiser : KSamplerX0Inpaint
        The host's denoiser of the running sampler.
    extra_args : mapping
        The sampler's ``extra_args``: model options and the inpainting mask.
    blocks : sequence of BlockId
        Blocks whose attention is wanted.
    truncate : bool, optional
        Leave the UNet after the last of them; the attention does not depend on it.
    """

    def __init__(
        self, denoiser: Any, extra_args: Mapping[str, Any], blocks: Sequence[BlockId], truncate: bool = True
    ) -> None:
        self._denoiser = denoiser
        self._model = denoiser.inner_model.inner_model
        self._denoise_mask = extra_args.get("denoise_mask")
        self._model_options = extra_args.get("model_options", {})
        self._blocks = blocks
        self._truncate = truncate

    def attention(
        self, condition: Mapping[str, Any], latents: torch.Tensor, sigma: torch.Tensor
    ) -> list[BlockAttention]:
        """Return the attention of one of the guider's prepared conditionings.

        Parameters
        ----------
        latents : Tensor (B, C, H, W)
            x = x0 + σ·ε, as `blend_inpainted` returns it.
        sigma : Tensor (B,)
            σ; equal for all images.

        Returns
        -------
        list of BlockAttention
            In the order of execution; empty where the conditioning is not in use at this noise level.
        """
        capture = AttentionCapture(self._model.diffusion_model, self._blocks, self._truncate)
        self._evaluate(condition, latents, sigma, capture)
        return capture.recorded

    def sparing_attention(
        self, condition: Mapping[str, Any], latents: torch.Tensor, sigma: torch.Tensor, tokens: Sequence[int]
    ) -> list[BlockAttention]:
        """Return the attention to some tokens alone, by a network that computes its blocks twice for the gradient.

        Arguments and result are those of `attention`; the columns are those of `tokens`, in their order.
        """
        network = self._model.diffusion_model
        capture = SparingCapture(network, self._blocks, tokens)
        try:
            with gradient_checkpointing(network, True, TWICE, {capture.last}, InferenceTensorGuard):
                self._evaluate(condition, latents, sigma, capture)
            return capture.recorded(InferenceTensorGuard)
        finally:
            capture.close()

    def _evaluate(
        self,
        condition: Mapping[str, Any],
        latents: torch.Tensor,
        sigma: torch.Tensor,
        capture: AttentionCapture | SparingCapture,
    ) -> None:
        condition = dict(condition)
        if "control" in condition:
            condition["control"] = _ConstantControl(condition["control"])
        try:
            with contextlib.suppress(CaptureComplete):
                comfy.samplers.calc_cond_batch(self._model, [[condition]], latents, sigma, self._options_with(capture))
        except KeyError as error:
            # What AnimateDiff-Evolved tells its own wrappers, in its own sampling function alone.
            if error.args != ("ad_params",):
                raise
            raise UserError(
                "The context options and motion models of AnimateDiff-Evolved allow no evaluation of the model but "
                "their own, and guidance by gradients takes another; choose the method injection in Apply Layout "
                "Guidance, or use the host's Context Windows."
            ) from error

    def blend_inpainted(self, latents: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Show the model what KSamplerX0Inpaint shows it: the noised original outside the inpainting mask, if any."""
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

    def _options_with(self, capture: AttentionCapture | SparingCapture) -> dict[str, Any]:
        options = with_attention_patch(self._model_options, capture)
        # The host evaluates the parts of a multi-GPU model under no_grad.
        options.pop("multigpu_clones", None)
        # Images do not depend on each other: where the host would show the model a part of the batch at a time, this
        # pass sees all of it.
        options.pop("context_handler", None)
        options["transformer_options"]["optimized_attention_override"] = pytorch_attention_override
        return options


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
