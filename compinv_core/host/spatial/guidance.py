"""Spatial inversion guidance on ComfyUI's samplers.

`apply_layout_guidance` clones a MODEL and hooks into its sampling (`sampling.hook`): the latent is improved at the
first evaluation of each guided step and written back in place, so that the sampler goes on from there; or the attention
of the sampler's own evaluations is given a bias (`injection`). The layout travels with the positive conditioning, the
settings with the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import comfy.patcher_extension
import node_helpers

from ...basics.errors import UserError, quoted, remark, remarks_here
from ...boxes.layout import Layout
from ...spatial.settings import GuidanceConfig
from ..computing import resident
from ..family import Family
from ..sampling.hook import SamplerStart, UpdateObserver, set_hooks
from ..text.known_prompt import KnownPrompt, placed
from ..text.spans import find_spans, together
from ..unet_blocks import BlockId
from .afterwards import Afterwards
from .guided_run import NODE_NAME, GuidanceRun, Observer
from .injection import Injection
from .objective import REGIONS_KEY, AttentionObjective, Region
from .passing_loss import PassingLoss

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP

_KEY = "compinv_layout_guidance"
_WRAPPERS = comfy.patcher_extension.WrappersMP
# Measured on a full-size model at 256² (float32): a guidance iteration holds 310 MiB beyond the weights; the host
# reckons with 82 MiB for a conditional and unconditional pass and keeps a reserve for what that leaves out.
_MEMORY_FACTOR = 4


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
    guided = (resident(model) if active and config.takes_gradients else model).clone()
    # A model that was guided before is guided anew, not twice.
    guided.remove_wrappers_with_key(_WRAPPERS.PREPARE_SAMPLING, _KEY)
    if not active:
        set_hooks(guided, guidance=None)
        return guided, positive
    blocks = family.blocks(guided.model.diffusion_model, config.blocks)
    hook = _LayoutGuidance(config, blocks, on_step, family.spares_memory, Afterwards(remarks_here(), NODE_NAME))
    set_hooks(guided, guidance=hook)
    if config.takes_gradients:
        guided.add_wrapper_with_key(_WRAPPERS.PREPARE_SAMPLING, _KEY, _reserve_memory)
    if conditioning is not None:
        return guided, _with_regions_found(clip, text, conditioning, parts, layout)
    regions = tuple(
        Region(span.phrase, together(tokens), place)
        for span, tokens, place in zip(spans, parts, layout.places, strict=True)
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
            Region(phrase, tokens, place)
            for phrase, part, place in zip(layout.phrases, parts, layout.places, strict=True)
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
        if not objective.conditions:
            self.afterwards.unguided(
                "the positive conditioning of this sampler has no layout, so nothing is guided; connect the node's "
                "`positive` output to the sampler."
            )
            return None
        config, conditions = self.config, objective.conditions
        injection = passing_loss = None
        if config.injects:
            injection = Injection(conditions, self.blocks, config.injection_strength, self.afterwards.say)
        if config.method == "hybrid" and config.takes_gradients:
            unet = begin.denoiser.inner_model.inner_model.diffusion_model
            passing_loss = PassingLoss(unet, conditions, self.blocks, config.loss)
        return GuidanceRun(
            begin, objective, config, self.afterwards, injection, passing_loss, self.on_step, before_update
        )
