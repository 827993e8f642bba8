"""Spatial inversion guidance on ComfyUI's samplers.

`apply_layout_guidance` clones a MODEL and wraps its sampling (``OUTER_SAMPLE``): the sampler receives a proxy of the
denoiser, which improves the latent at the first evaluation of each guided step and writes it back in place, so that the
sampler goes on from there. The layout travels with the positive conditioning, the settings with the model.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.patcher_extension
import comfy.samplers
import node_helpers
import torch

from ..errors import UserError
from ..guidance import GuidanceConfig, guide_latents
from ..layout import Layout
from .attention_objective import REGIONS_KEY, AttentionObjective, Region
from .capture import select_blocks
from .models import require_sd1, resident
from .prompt_spans import find_spans
from .sampler_plan import SamplerPlan, plan_sampler

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP

logger = logging.getLogger("compinv")

NODE_NAME = "Apply Layout Guidance"
_KEY = "compinv_layout_guidance"
_WRAPPERS = comfy.patcher_extension.WrappersMP
# Measured on a full-size model at 256² (float32): a guidance iteration holds 310 MiB beyond the weights; the host
# reckons with 82 MiB for a conditional and unconditional pass and keeps a reserve for what that leaves out.
_MEMORY_FACTOR = 4


@dataclass(frozen=True)
class GuidanceRecord:
    """What guidance did at one sampling step.

    Parameters
    ----------
    step : int
        Counted from 0.
    sigma : float
        Noise level.
    losses : tuple of tuples of float
        For every evaluation, the loss of each image before the update that followed.
    updates : tuple of int
        Updates of each image.
    """

    step: int
    sigma: float
    losses: tuple[tuple[float, ...], ...]
    updates: tuple[int, ...]


Observer = Callable[[GuidanceRecord], None]


def apply_layout_guidance(
    model: ModelPatcher,
    clip: CLIP,
    text: str,
    layout: Layout,
    config: GuidanceConfig,
    on_step: Observer | None = None,
) -> tuple[ModelPatcher, list]:
    """Encode a prompt and make a model whose sampling moves each phrase into its box.

    Parameters
    ----------
    model : ModelPatcher
        Stable Diffusion 1. Not changed.
    clip : CLIP
    text : str
        The prompt. Every phrase of the layout must occur in it.
    layout : Layout
        May be empty.
    config : GuidanceConfig
    on_step : callable, optional
        Receives a `GuidanceRecord` after every guided step.

    Returns
    -------
    model : ModelPatcher
        A clone. Without any effect, bit for bit, where `config` is inactive or the layout empty.
    positive : CONDITIONING
        The encoded prompt with the layout; to be used as the sampler's positive input.

    Raises
    ------
    UserError
        When the model or text encoder is not Stable Diffusion 1, or a phrase is not in the prompt.
    """
    require_sd1(NODE_NAME, model=model, clip=clip)
    spans = find_spans(clip, text, layout.phrases, NODE_NAME)
    regions = tuple(
        Region(span.phrase, span.placeholder if config.span == "placeholder" and span.placeholder else span.tokens, box)
        for span, box in zip(spans, layout.boxes, strict=True)
    )
    positive = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    guided = _guidable_clone(model)
    if config.is_active and regions:
        select_blocks(guided.model.diffusion_model, config.blocks)
        guided.add_wrapper_with_key(_WRAPPERS.OUTER_SAMPLE, _KEY, _sampling_wrapper(config, on_step))
        guided.add_wrapper_with_key(_WRAPPERS.PREPARE_SAMPLING, _KEY, _reserve_memory)
        positive = node_helpers.conditioning_set_values(positive, {REGIONS_KEY: regions})
    return guided, positive


def _guidable_clone(model: ModelPatcher) -> ModelPatcher:
    clone = resident(model).clone()
    # A model that was guided before is guided anew, not twice.
    for wrapper_type in (_WRAPPERS.OUTER_SAMPLE, _WRAPPERS.PREPARE_SAMPLING):
        clone.remove_wrappers_with_key(wrapper_type, _KEY)
    return clone


def _reserve_memory(executor: Any, model: ModelPatcher, noise_shape: Any, *args: Any, **kwargs: Any) -> Any:
    """Make the host keep memory free for the backward pass, by announcing a larger batch (only sizes depend on it)."""
    return executor(model, [noise_shape[0] * _MEMORY_FACTOR, *noise_shape[1:]], *args, **kwargs)


def _sampling_wrapper(config: GuidanceConfig, on_step: Observer | None) -> Callable:
    def sample(executor: Any, noise: torch.Tensor, latent_image: torch.Tensor, sampler: Any, *args: Any, **kwargs: Any):
        return executor(noise, latent_image, _guided_sampler(sampler, config, on_step), *args, **kwargs)

    return sample


def _guided_sampler(sampler: Any, config: GuidanceConfig, on_step: Observer | None) -> comfy.samplers.KSAMPLER:
    if not isinstance(sampler, comfy.samplers.KSAMPLER):
        raise UserError(
            f"{NODE_NAME} cannot guide the sampler {type(sampler).__name__}; choose a sampler of KSampler or "
            "KSamplerSelect, or leave this node out."
        )
    function = sampler.sampler_function

    @functools.wraps(function)
    def guided(denoiser, x, sigmas, *, extra_args, callback=None, disable=None, **options):
        rest = dict(extra_args=extra_args, callback=callback, disable=disable, **options)
        objective = AttentionObjective(denoiser, extra_args, config)
        if not objective.has_regions:
            logger.warning(
                "%s: the positive conditioning of this sampler has no layout, so nothing is guided; connect the node's "
                "`positive` output to the sampler.",
                NODE_NAME,
            )
            return function(denoiser, x, sigmas, **rest)
        run = GuidanceRun(objective, config, plan_sampler(function, denoiser, x, sigmas, extra_args, options), on_step)
        return run.finish(function(_DenoiserProxy(denoiser, run), x, sigmas, **rest), sigmas)

    clone = copy.copy(sampler)
    clone.sampler_function = guided
    return clone


class GuidanceRun:
    """Guides the latents of one sampling run.

    Where the sampler evaluates its own state, the improved latent is written back in place. Where it evaluates a copy
    (UniPC), the difference is carried along instead: such solvers are linear in the state and shrink it with σ, so a
    state moved by Δ at noise level σ is moved by Δ·σ'/σ at σ'.

    Parameters
    ----------
    objective : AttentionObjective
    config : GuidanceConfig
    plan : SamplerPlan
    on_step : callable, optional
    """

    def __init__(
        self, objective: AttentionObjective, config: GuidanceConfig, plan: SamplerPlan, on_step: Observer | None
    ) -> None:
        self._objective = objective
        self._config = config
        self._plan = plan
        self._on_step = on_step
        self._end_sigma = objective.percent_to_sigma(config.end_percent)
        self._evaluation = -1
        self._last_loss: torch.Tensor | None = None
        self._carried: torch.Tensor | None = None
        self._carried_sigma = 0.0

    def latents_for(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Guide the latent of the sampler's next evaluation, if that begins a guided step.

        Parameters
        ----------
        x : Tensor (B, C, H, W)
            What the sampler wants evaluated. Changed in place where the sampler is to go on from the improved latent.
        sigma : Tensor (B,)

        Returns
        -------
        Tensor (B, C, H, W)
            What is to be evaluated; `x` itself where nothing changes.
        """
        self._evaluation += 1
        level = float(sigma.flatten()[0])
        if self._carried is not None:
            x = x + self._carried * (level / self._carried_sigma)
        step = self._plan.step_at(self._evaluation, level)
        if step is None or step >= self._config.guided_steps or level <= self._end_sigma:
            return x
        result = guide_latents(
            x,
            sigma,
            lambda latents: self._objective(latents, sigma),
            self._config,
            self._last_loss,
            comfy.model_management.throw_exception_if_processing_interrupted,
        )
        self._last_loss = result.last_loss
        self._report(GuidanceRecord(step, level, result.losses, result.updates))
        if not any(result.updates):
            return x
        if self._plan.edits_reach_state:
            return x.copy_(result.latents)
        carried = result.latents - x
        if self._carried is not None:
            carried = carried + self._carried * (level / self._carried_sigma)
        self._carried, self._carried_sigma = carried, level
        return result.latents

    def finish(self, samples: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        """Add what was carried along, which a run that ends at σ = 0 has already worked off.

        Parameters
        ----------
        samples : Tensor (B, C, H, W)
            The sampler's result.
        sigmas : Tensor (S + 1,)

        Returns
        -------
        Tensor (B, C, H, W)
        """
        if self._carried is None:
            return samples
        return samples + self._carried * (float(sigmas[-1]) / self._carried_sigma)

    def _report(self, record: GuidanceRecord) -> None:
        if record.losses:
            rows = " -> ".join("[" + ", ".join(f"{loss:.3f}" for loss in losses) + "]" for losses in record.losses)
            logger.info("Layout guidance, step %d (sigma %.3f): loss %s", record.step + 1, record.sigma, rows)
        if self._on_step is not None:
            self._on_step(record)


class _DenoiserProxy:
    """The host's denoiser as the sampler sees it, with guidance before every evaluation."""

    def __init__(self, denoiser: Any, run: GuidanceRun) -> None:
        self.__dict__.update(_denoiser=denoiser, _run=run)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._denoiser, name, value)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self._denoiser(self._run.latents_for(x, sigma), sigma, *args, **kwargs)
