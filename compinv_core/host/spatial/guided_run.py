"""One guided sampling run: what happens at each evaluation of the sampler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_management
import torch

from ... import logger
from ...basics.errors import remarks_to
from ...spatial.guidance import guide_latents
from ...spatial.settings import GuidanceConfig
from ..sampling.hook import SamplerStart, UpdateObserver
from .afterwards import Afterwards
from .injection import Injection
from .objective import AttentionObjective
from .passing_loss import PassingLoss

NODE_NAME = "Apply Layout Guidance"
_TOLERANCE = 1e-4


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


class GuidanceRun:
    """Guides the latents of one sampling run.

    Where the sampler evaluates its own state, the improved latent is written back in place. Where it evaluates a copy
    (UniPC), the difference is carried along instead: such solvers are linear in the state and shrink it with σ, so a
    state moved by Δ at noise level σ is moved by Δ·σ'/σ at σ'.

    Parameters
    ----------
    begin : SamplerStart
        The sampler that is about to run.
    afterwards : Afterwards
        Says where nothing was guided.
    injection : Injection, optional
        Adds its bias as long as steps are guided.
    passing_loss : PassingLoss, optional
        Gradients are taken only where the step before left it above the threshold.
    before_update : callable, optional
        Sees the latents and σ of a step that changes them.
    """

    def __init__(
        self,
        begin: SamplerStart,
        objective: AttentionObjective,
        config: GuidanceConfig,
        afterwards: Afterwards,
        injection: Injection | None = None,
        passing_loss: PassingLoss | None = None,
        on_step: Observer | None = None,
        before_update: UpdateObserver | None = None,
    ) -> None:
        self._objective, self._injection, self._passing_loss = objective, injection, passing_loss
        self._config = replace(config, max_iterations=min(config.max_iterations, 1)) if passing_loss else config
        self._edits_reach_state = begin.plan.edits_reach_state
        self._afterwards = afterwards
        self._steps = config.steps_of(len(begin.sigmas) - 1)
        self._on_step = on_step
        self._before_update = before_update
        self._end_sigma = objective.percent_to_sigma(config.end_percent)
        # An adaptive sampler's later steps are told by their noise alone.
        first_unguided = float(begin.sigmas[min(self._steps, len(begin.sigmas) - 1)])
        self._last_injected = max(self._end_sigma, first_unguided)
        self._last_loss: tuple[float, ...] | None = None
        self._carried: torch.Tensor | None = None
        self._carried_sigma = 0.0
        self._was_in_range = False

    def latents_for(self, x: torch.Tensor, sigma: torch.Tensor, step: int | None) -> torch.Tensor:
        """Guide the latent of the sampler's next evaluation, if that begins a guided step; return what is evaluated.

        `x` (B, C, H, W), which the sampler wants evaluated, is changed in place where the sampler is to go on from the
        improved latent. `step` is the one that the evaluation begins, counted from 0, or None.
        """
        level = float(sigma.flatten()[0])
        if self._carried is not None:
            x = x + self._carried * (level / self._carried_sigma)
        if step is None or step >= self._steps or level <= self._end_sigma:
            return x
        self._was_in_range = True
        if not self._config.takes_gradients or (
            self._passing_loss and self._passing_loss.is_below(self._config.threshold)
        ):
            self._report(GuidanceRecord(step, level, (), (0,) * len(x)))
            return x
        with remarks_to(self._afterwards.node), self._objective.open(x.device):
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
        if self._before_update is not None:
            self._before_update(x, sigma)
        if self._edits_reach_state:
            return x.copy_(result.latents)
        carried = result.latents - x
        if self._carried is not None:
            carried = carried + self._carried * (level / self._carried_sigma)
        self._carried, self._carried_sigma = carried, level
        return result.latents

    def watch(
        self, x: torch.Tensor, sigma: float, step: int | None, model_options: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], Callable[[], None]]:
        """Add the bias, and the watch over the loss, to an evaluation; see `sampling.hook.Guide`."""
        done: Callable[[], None] = _nothing
        if sigma <= self._last_injected * (1 + _TOLERANCE):
            return model_options, done
        size = x.shape[-2], x.shape[-1]
        if self._passing_loss and step is not None:
            model_options, done = self._passing_loss.watch(model_options, size)
        if self._injection:
            model_options = self._injection.added_to(model_options, sigma, size)
        return model_options, done

    def finish(self, samples: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        """Add what was carried along, which a run that ends at σ = 0 has already worked off, to the result."""
        if not self._was_in_range:
            self._afterwards.unguided(
                "no step of this sampling was guided, for all lie behind `end_percent`; raise it, or leave this node "
                "out."
            )
        elif not (self._objective.was_in_use or (self._injection and self._injection.was_in_use)):
            self._afterwards.unguided(
                "nothing was guided, for the words of the layout were not in use in the guided steps; give their "
                "conditioning a range that begins with the first step, or raise `guided_share`."
            )
        else:
            self._afterwards.guided()
        if self._carried is None:
            return samples
        return samples + self._carried * (float(sigmas[-1]) / self._carried_sigma)

    def _report(self, record: GuidanceRecord) -> None:
        if record.losses:
            rows = " -> ".join("[" + ", ".join(f"{loss:.3f}" for loss in losses) + "]" for losses in record.losses)
            logger.info("Layout guidance, step %d (sigma %.3f): loss %s", record.step + 1, record.sigma, rows)
        if self._on_step is not None:
            self._on_step(record)


def _nothing() -> None:
    pass
