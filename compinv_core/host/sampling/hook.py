"""The pack's one hook into ComfyUI's sampling, shared by layout guidance and the recording of attention.

A node clones a MODEL and puts its part into the clone's `SamplingHooks`, a wrapper around sampling (``OUTER_SAMPLE``).
There the sampler receives a proxy of the denoiser, which lets each part act on the sampler's evaluations. Being one
wrapper, it acts in the same order whichever node came first: guidance changes the latent, recording sees both sides.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import comfy.patcher_extension
import comfy.samplers
import torch

from ...basics.errors import UserError
from ..computing import held_weights
from .plan import SamplerPlan, plan_sampler

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

_KEY = "compinv_sampling"
_WRAPPERS = comfy.patcher_extension.WrappersMP

UpdateObserver = Callable[[torch.Tensor, torch.Tensor], None]
"""Called with the latents (B, C, H, W) and σ (B,) of an evaluation, before guidance changes the latents."""


@dataclass(frozen=True)
class SamplerStart:
    """A sampler that is about to run.

    Parameters
    ----------
    denoiser : KSamplerX0Inpaint
        The host's denoiser; its `inner_model` is the guider.
    latents : Tensor (B, C, H, W)
    sigmas : Tensor (S + 1,)
    extra_args : mapping
        The sampler's ``extra_args``.
    """

    denoiser: Any
    latents: torch.Tensor
    sigmas: torch.Tensor
    extra_args: Mapping[str, Any]
    sampler_name: str
    plan: SamplerPlan


class Guide(Protocol):
    """Changes the latents of one sampling run."""

    def latents_for(self, x: torch.Tensor, sigma: torch.Tensor, step: int | None) -> torch.Tensor:
        """Return what is to be evaluated; `step` is the step that this evaluation begins, or None."""
        ...

    def watch(
        self, x: torch.Tensor, sigma: float, step: int | None, model_options: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], Callable[[], None]]:
        """Return the model options for an evaluation of latents, and what is to be called after it."""
        ...

    def finish(self, samples: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        """Return the sampler's result, completed."""
        ...


class GuidanceHook(Protocol):
    """What a guiding node adds to a model."""

    node_name: str

    def start(self, begin: SamplerStart, before_update: UpdateObserver | None) -> Guide | None:
        """Return the guide of a run, or None where there is nothing to guide."""
        ...


class Recorder(Protocol):
    """Watches one sampling run."""

    def before_update(self, x: torch.Tensor, sigma: torch.Tensor) -> None:
        """See the latents that guidance is about to change."""
        ...

    def watch(self, step: int, sigma: float, model_options: Mapping[str, Any]) -> tuple[dict[str, Any], Callable]:
        """Return the model options for the evaluation that begins a step, and what is to be called after it."""
        ...

    def finish(self, samples: torch.Tensor) -> None:
        """Take the result of the run, as the sampler node gives it out."""
        ...


class RecordingHook(Protocol):
    """What a recording node adds to a model."""

    node_name: str

    def start(self, begin: SamplerStart) -> Recorder:
        """Return the recorder of a run."""
        ...


@dataclass(frozen=True)
class SamplingHooks:
    """The parts that act on a model's sampling; called by the host as the wrapper of the sampling."""

    guidance: GuidanceHook | None = None
    recording: RecordingHook | None = None

    def __call__(
        self, executor: Any, noise: torch.Tensor, latent_image: torch.Tensor, sampler: Any, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Sample with the parts in place; arguments and result are those of the host's ``outer_sample``.

        Raises
        ------
        UserError
            When the sampler is not of the host's kind.
        """
        if not isinstance(sampler, comfy.samplers.KSAMPLER):
            names = " and ".join(part.node_name for part in (self.guidance, self.recording) if part)
            raise UserError(
                f"{names} cannot work with the sampler {type(sampler).__name__}; choose a sampler of KSampler or "
                "KSamplerSelect, or leave the node out."
            )
        recorders: list[Recorder] = []
        samples = executor(noise, latent_image, self._hooked(sampler, recorders), *args, **kwargs)
        for recorder in recorders:
            recorder.finish(samples)
        return samples

    def _hooked(self, sampler: comfy.samplers.KSAMPLER, recorders: list[Recorder]) -> comfy.samplers.KSAMPLER:
        function = sampler.sampler_function

        @functools.wraps(function)
        def hooked(denoiser, x, sigmas, *, extra_args, callback=None, disable=None, **options):
            plan = plan_sampler(function, denoiser, x, sigmas, extra_args, options)
            name = getattr(function, "__name__", type(function).__name__)
            begin = SamplerStart(denoiser, x, sigmas, extra_args, name, plan)
            recorder = self.recording.start(begin) if self.recording else None
            if recorder:
                recorders.append(recorder)
            guide = self.guidance.start(begin, recorder.before_update if recorder else None) if self.guidance else None
            seen = _DenoiserProxy(denoiser, _Evaluations(plan, guide, recorder)) if guide or recorder else denoiser
            model = denoiser.inner_model.inner_model
            # A model that was loaded a second time for its gradients may hold weights that no layer casts.
            with held_weights(model.diffusion_model, model.get_dtype_inference(), x.device, without_casting=True):
                samples = function(
                    seen, x, sigmas, extra_args=extra_args, callback=callback, disable=disable, **options
                )
            return guide.finish(samples, sigmas) if guide else samples

        clone = copy.copy(sampler)
        clone.sampler_function = hooked
        return clone


def hooks_of(model: ModelPatcher) -> SamplingHooks:
    """Return what nodes have put into a model so far."""
    found: Any = model.get_wrappers(_WRAPPERS.OUTER_SAMPLE, _KEY)
    return found[0] if found else SamplingHooks()


def set_hooks(clone: ModelPatcher, **parts: Any) -> None:
    """Replace parts of a model's hooks; a model without any part is sampled as if it had never been hooked.

    Parameters
    ----------
    clone : ModelPatcher
        Changed; therefore a clone of the graph's model.
    **parts
        Fields of `SamplingHooks`.
    """
    hooks = replace(hooks_of(clone), **parts)
    clone.remove_wrappers_with_key(_WRAPPERS.OUTER_SAMPLE, _KEY)
    if hooks != SamplingHooks():
        clone.add_wrapper_with_key(_WRAPPERS.OUTER_SAMPLE, _KEY, hooks)


class _Evaluations:
    """Lets the parts act on each evaluation of one sampling run."""

    def __init__(self, plan: SamplerPlan, guide: Guide | None, recorder: Recorder | None) -> None:
        self._plan = plan
        self._guide = guide
        self._recorder = recorder
        self._count = 0

    def __call__(self, denoiser: Any, x: torch.Tensor, sigma: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        level = float(sigma.flatten()[0])
        step = self._plan.step_at(self._count, level)
        self._count += 1
        options, calls = kwargs.get("model_options", {}), list[Callable[[], None]]()
        if self._guide:
            x = self._guide.latents_for(x, sigma, step)
            options, done = self._guide.watch(x, level, step, options)
            calls.append(done)
        if self._recorder and step is not None:
            options, done = self._recorder.watch(step, level, options)
            calls.append(done)
        denoised = denoiser(x, sigma, *args, **kwargs | {"model_options": options})
        for done in calls:
            done()
        return denoised


class _DenoiserProxy:
    """The host's denoiser as the sampler sees it."""

    def __init__(self, denoiser: Any, evaluations: _Evaluations) -> None:
        self.__dict__.update(_denoiser=denoiser, _evaluations=evaluations)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._denoiser, name, value)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self._evaluations(self._denoiser, x, sigma, *args, **kwargs)
