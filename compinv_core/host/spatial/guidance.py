"""Spatial inversion guidance on ComfyUI's samplers.

`apply_layout_guidance` clones a MODEL and hooks into its sampling (`sampling.hook`): the latent is improved at the
first evaluation of each guided step and written back in place, so that the sampler goes on from there. The layout
travels with the positive conditioning, the settings with the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.patcher_extension
import node_helpers
import torch

from ... import logger
from ...basics.errors import UserError, quoted, remark, remarks_here, remarks_to
from ...boxes.layout import Layout
from ...spatial.guidance import guide_latents
from ...spatial.settings import GuidanceConfig
from ..computing import resident
from ..family import Family
from ..sampling.hook import SamplerStart, UpdateObserver, set_hooks
from ..text.known_prompt import KnownPrompt, placed
from ..text.spans import find_spans, together
from ..unet_blocks import BlockId
from .afterwards import Afterwards
from .objective import REGIONS_KEY, AttentionObjective, Region

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP

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
    conditioning: list | None = None,
) -> tuple[ModelPatcher, list]:
    """Encode a prompt and make a model whose sampling moves each phrase into its box.

    Parameters
    ----------
    model : ModelPatcher
        Not changed.
    text : str
        The prompt. Every phrase of the layout must occur in it.
    layout : Layout
        May be empty.
    on_step : callable, optional
        Receives a `GuidanceRecord` after every guided step.
    conditioning : CONDITIONING, optional
        The prompt, encoded already by the same `clip`, by one of its text encoders alone, or joined to other prompts;
        None encodes it here.

    Returns
    -------
    model : ModelPatcher
        A clone. Without any effect, bit for bit, where `config` is inactive or the layout empty.
    positive : CONDITIONING
        The encoded prompt with the layout; to be used as the sampler's positive input.

    Raises
    ------
    UserError
        When the model or text encoder is not supported, a phrase is not in the prompt, or the prompt is not in the
        conditioning.
    """
    family = Family.of(NODE_NAME, model, clip)
    spans = find_spans(clip, text, layout.phrases, NODE_NAME)
    parts = [span.learned if config.span == "placeholder" and span.placeholder else span.by_encoder for span in spans]
    positive = clip.encode_from_tokens_scheduled(clip.tokenize(text)) if conditioning is None else conditioning
    if not spans:
        remark(
            f"{NODE_NAME}: the layout has no box, so nothing is guided; draw boxes, lower the detector's `threshold`, "
            "or leave this node out."
        )
    active = config.is_active and bool(spans)
    guided = (resident(model) if active else model).clone()
    # A model that was guided before is guided anew, not twice.
    guided.remove_wrappers_with_key(_WRAPPERS.PREPARE_SAMPLING, _KEY)
    if not active:
        set_hooks(guided, guidance=None)
        return guided, positive
    blocks = family.blocks(guided.model.diffusion_model, config.blocks)
    hook = _LayoutGuidance(config, blocks, on_step, family.spares_memory, Afterwards(remarks_here(), NODE_NAME))
    set_hooks(guided, guidance=hook)
    guided.add_wrapper_with_key(_WRAPPERS.PREPARE_SAMPLING, _KEY, _reserve_memory)
    if conditioning is not None:
        return guided, _with_regions_found(clip, text, conditioning, parts, layout)
    regions = tuple(
        Region(span.phrase, together(tokens), box) for span, tokens, box in zip(spans, parts, layout.boxes, strict=True)
    )
    return guided, node_helpers.conditioning_set_values(positive, {REGIONS_KEY: regions})


def _with_regions_found(
    clip: CLIP, text: str, conditioning: list, parts: Sequence[Sequence[Sequence[int]]], layout: Layout
) -> list:
    """Return a conditioning with the layout wherever it holds the prompt.

    Raises
    ------
    UserError
        When it does nowhere.
    """
    known, found = KnownPrompt.of(clip, text, NODE_NAME), False
    entries = []
    for encoded, options in conditioning:
        offsets = known.offsets_in(encoded)
        regions = tuple(
            Region(phrase, tokens, box)
            for phrase, part, box in zip(layout.phrases, parts, layout.boxes, strict=True)
            if (tokens := placed(part, offsets))
        )
        found = found or bool(regions)
        entries.append([encoded, {**options, REGIONS_KEY: regions} if regions else options])
    if not found:
        raise UserError(
            f"{NODE_NAME}: `conditioning` is not {quoted(text)} encoded by the same text encoder; give the node the "
            "`text` and `clip` that it was made of, or leave `conditioning` unconnected."
        )
    return entries


def _reserve_memory(executor: Any, model: ModelPatcher, noise_shape: Any, *args: Any, **kwargs: Any) -> Any:
    """Make the host keep memory free for the backward pass, by announcing a larger batch (only sizes depend on it)."""
    return executor(model, [noise_shape[0] * _MEMORY_FACTOR, *noise_shape[1:]], *args, **kwargs)


@dataclass(frozen=True)
class _LayoutGuidance:
    """What this node adds to a model's sampling; see `sampling.hook.GuidanceHook`."""

    config: GuidanceConfig
    blocks: tuple[BlockId, ...]
    on_step: Observer | None
    sparing: bool
    afterwards: Afterwards
    node_name: str = NODE_NAME

    def start(self, begin: SamplerStart, before_update: UpdateObserver | None) -> GuidanceRun | None:
        self.afterwards.begin()
        objective = AttentionObjective(begin.denoiser, begin.extra_args, self.blocks, self.config, sparing=self.sparing)
        if not objective.has_regions:
            self.afterwards.unguided(
                "the positive conditioning of this sampler has no layout, so nothing is guided; connect the node's "
                "`positive` output to the sampler."
            )
            return None
        return GuidanceRun(objective, self, begin, before_update)


class GuidanceRun:
    """Guides the latents of one sampling run.

    Where the sampler evaluates its own state, the improved latent is written back in place. Where it evaluates a copy
    (UniPC), the difference is carried along instead: such solvers are linear in the state and shrink it with σ, so a
    state moved by Δ at noise level σ is moved by Δ·σ'/σ at σ'.

    Parameters
    ----------
    begin : SamplerStart
        Of the run.
    before_update : callable, optional
        Sees the latents and σ of a step that changes them.
    """

    def __init__(
        self,
        objective: AttentionObjective,
        hook: _LayoutGuidance,
        begin: SamplerStart,
        before_update: UpdateObserver | None = None,
    ) -> None:
        self._objective = objective
        self._config, self._on_step, self._afterwards = hook.config, hook.on_step, hook.afterwards
        self._edits_reach_state = begin.plan.edits_reach_state
        self._steps = self._config.steps_of(len(begin.sigmas) - 1)
        self._before_update = before_update
        self._end_sigma = objective.percent_to_sigma(self._config.end_percent)
        self._last_loss: tuple[float, ...] | None = None
        self._carried: torch.Tensor | None = None
        self._carried_sigma = 0.0
        self._steps_in_range = 0

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
        with remarks_to(self._afterwards.node), self._objective.open(x.device):
            result = guide_latents(
                x,
                sigma,
                lambda latents: self._objective(latents, sigma),
                self._config,
                self._last_loss,
                comfy.model_management.throw_exception_if_processing_interrupted,
            )
        self._steps_in_range += 1
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

    def finish(self, samples: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        """Add what was carried along, which a run that ends at σ = 0 has already worked off, to the result."""
        if not self._steps_in_range:
            self._afterwards.unguided(
                "no step of this sampling was guided, for all lie behind `end_percent`; raise it, or leave this node "
                "out."
            )
        elif not self._objective.was_in_use:
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
