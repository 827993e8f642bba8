"""Which evaluation of the model begins a sampling step, learnt by a dry run of the sampler itself.

Samplers evaluate the model once, twice or more per step, at noise levels that may repeat; only the first evaluation of
a step sees the sampler's own state. A dry run on a tiny latent with a denoiser that returns zeros tells them apart in
milliseconds: there, the tensor handed to the step's callback *is* the evaluated one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import comfy.model_patcher
import torch

from ...basics.errors import remark

_RELATIVE_TOLERANCE = 1e-4
_DRY_RUN_SIZE = 8


@dataclass(frozen=True)
class SamplerPlan:
    """The evaluations of a sampling run that begin a step.

    Parameters
    ----------
    steps : Mapping from int to (int, float)
        Evaluation number to the step it begins and that step's noise level σ.
    edits_reach_state : bool
        Whether a change written into the evaluated tensor changes the sampler's own state. False for samplers that
        evaluate a copy (UniPC).
    """

    steps: Mapping[int, tuple[int, float]]
    edits_reach_state: bool

    def step_at(self, evaluation: int, sigma: float) -> int | None:
        """Return the step that an evaluation begins.

        Parameters
        ----------
        evaluation : int
            Counted from 0.
        sigma : float
            The noise level seen there. An adaptive sampler soon leaves its plan; then this differs from the planned
            one and nothing begins.
        """
        step, planned = self.steps.get(evaluation, (None, 0.0))
        return step if abs(sigma - planned) <= _RELATIVE_TOLERANCE * max(1.0, planned) else None


@dataclass(frozen=True)
class _DryRun:
    sigmas: list[float]
    first_evaluations: dict[int, int]
    inputs: list[torch.Tensor]
    result: torch.Tensor

    def state_after_first(self) -> torch.Tensor:
        return self.inputs[1] if len(self.inputs) > 1 else self.result


def plan_sampler(
    sampler_function: Callable,
    denoiser: Any,
    latents: torch.Tensor,
    sigmas: torch.Tensor,
    extra_args: Mapping[str, Any],
    options: Mapping[str, Any],
) -> SamplerPlan:
    """Dry-run a sampler.

    Leaves the global random number generators, `sigmas` and the model options as they were.

    Parameters
    ----------
    sampler_function : callable
        The host's ``KSAMPLER.sampler_function``.
    denoiser : KSamplerX0Inpaint
        Lends its attributes (samplers look up the model's noise schedule); it is not evaluated.
    latents : Tensor (B, C, H, W)
        Only channels, dtype and device are used.
    sigmas : Tensor (S + 1,)
        Noise levels of the run.
    extra_args, options : mapping
        The sampler's ``extra_args``, and its other keyword arguments.
    """
    if len(sigmas) < 2:
        # The last noise level alone, as SplitSigmas may leave it, holds no step.
        return SamplerPlan({}, True)
    run = lambda edit: _dry_run(sampler_function, denoiser, latents, sigmas, extra_args, options, edit)  # noqa: E731
    try:
        plain = run(0.0)
        by_identity = 0 in plain.first_evaluations
        reaches = by_identity or _moves_along(run(1.0).state_after_first(), plain.state_after_first())
    except Exception as error:
        name = getattr(sampler_function, "__name__", repr(sampler_function))
        remark(f"CompInv: the dry run of sampler {name} failed ({error}); only its first step is guided and recorded.")
        return SamplerPlan({0: (0, float(sigmas[0]))}, True)
    # The first evaluation begins the first step, whatever the callback shows (DPM adaptive shows only later states).
    steps = {0: 0, **plain.first_evaluations}
    # Some samplers (DEIS, iPNDM-v, UniPC) hand another tensor to the callback, but evaluate once per step.
    if len(steps) < len(sigmas) - 1 == len(plain.sigmas):
        steps = {index: index for index in range(len(plain.sigmas))}
    return SamplerPlan({index: (step, plain.sigmas[index]) for index, step in steps.items()}, reaches)


class _ZeroDenoiser:
    """Stands for the model in a dry run: returns zeros, and remembers what it was asked."""

    def __init__(self, real: Any, first_edit: float) -> None:
        self._real = real
        self._first_edit = first_edit
        self.inputs: list[torch.Tensor] = []
        self.sigmas: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not self.inputs:
            x += self._first_edit
        # The tensor itself is kept, not a copy: identity with the callback's is what counts.
        self.inputs.append(x)
        self.sigmas.append(float(sigma.flatten()[0]))
        denoised = torch.zeros_like(x)
        for function in kwargs.get("model_options", {}).get("sampler_post_cfg_function", ()):
            denoised = function(_post_cfg_arguments(x, sigma, denoised, kwargs["model_options"]))
        return denoised


def _dry_run(
    sampler_function: Callable,
    denoiser: Any,
    latents: torch.Tensor,
    sigmas: torch.Tensor,
    extra_args: Mapping[str, Any],
    options: Mapping[str, Any],
    first_edit: float,
) -> _DryRun:
    zero = _ZeroDenoiser(denoiser, first_edit)
    first_evaluations: dict[int, int] = {}

    def callback(state: Mapping[str, Any]) -> None:
        matching = (i for i in reversed(range(len(zero.inputs))) if zero.inputs[i] is state["x"])
        if (index := next(matching, None)) is not None:
            first_evaluations.setdefault(index, state["i"])

    model_options = comfy.model_patcher.create_model_options_clone(extra_args.get("model_options", {}))
    # Other packs' functions would see the tiny latent; those that the sampler itself adds (CFG++) come after this.
    model_options["sampler_post_cfg_function"] = []
    tiny = latents.new_ones((1, latents.shape[1], _DRY_RUN_SIZE, _DRY_RUN_SIZE))
    devices = [latents.device] if latents.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        result = sampler_function(
            zero,
            tiny,
            sigmas.clone(),
            extra_args={**extra_args, "model_options": model_options, "denoise_mask": None},
            callback=callback,
            disable=True,
            **{name: value for name, value in options.items() if name != "noise_sampler"},
        )
    return _DryRun(zero.sigmas, first_evaluations, zero.inputs, result)


def _moves_along(edited: torch.Tensor, plain: torch.Tensor) -> bool:
    # With a denoiser that returns zeros, every solver shrinks its state by a positive factor from step to step. UniPC,
    # which evaluates a copy, takes the edit for a change of the denoised image and moves the other way.
    return float((edited - plain).mean()) > 0


def _post_cfg_arguments(
    x: torch.Tensor, sigma: torch.Tensor, denoised: torch.Tensor, model_options: Mapping[str, Any]
) -> dict[str, Any]:
    images = dict.fromkeys(("denoised", "cond_denoised", "uncond_denoised"), denoised)
    absent = dict.fromkeys(("cond", "uncond", "model"))
    return {**images, **absent, "cond_scale": 1.0, "sigma": sigma, "input": x, "model_options": model_options}
