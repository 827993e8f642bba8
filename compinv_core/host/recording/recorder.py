"""Recording cross-attention while ComfyUI's samplers run.

`record_attention` clones a MODEL and hooks into its sampling (`sampling.hook`): at the first evaluation of each step,
the attention of the prompt is read in passing from the sampler's own evaluation of the model, so the picture stays the
same bit for bit. Only where layout guidance changes the latents is the model evaluated once more, on those before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...basics.errors import UserError
from ...boxes.places import Place
from ...recording.record import AttentionRecord, AttentionRecording
from ...spatial.attention import BlockMaps, reduce_block
from ...words.phrases import check_phrases
from ..family import Family
from ..sampling.capture import AttentionTap, TapTarget, with_attention_patch
from ..sampling.conditional_pass import ConditionalPass, positive_conditions
from ..sampling.hook import SamplerStart, set_hooks
from ..spatial.objective import REGIONS_KEY
from ..text.known_prompt import KnownPrompt, placed
from ..text.reading import read_prompt
from ..text.spans import find_spans
from ..unet_blocks import BlockId

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP

NODE_NAME = "Record Attention"

Parts = tuple[tuple[int, ...], ...]
"""Positions of tokens in the prompt, for each text encoder."""


def record_attention(
    model: ModelPatcher, clip: CLIP, text: str, phrases: Sequence[str], blocks: str = "middle and first up"
) -> tuple[ModelPatcher, AttentionRecording]:
    """Make a model whose sampling records the cross-attention of the phrases of a prompt.

    Parameters
    ----------
    model : ModelPatcher
        With or without layout guidance. Not changed.
    text : str
        The prompt. A sampler's positive conditioning must encode the same text with the same `clip`, or with one of its
        text encoders; weights, areas of time, and other prompts behind it do not matter.
    phrases : sequence of str
        Parts of the prompt, all different.
    blocks : str
        See `capture.select_blocks`.

    Returns
    -------
    model : ModelPatcher
        A clone that samples the same pictures.
    recording : AttentionRecording
        Filled by each of its samplings.

    Raises
    ------
    UserError
        When the model or text encoder is not supported, there is no phrase, or one is not in the prompt.
    """
    family = Family.of(NODE_NAME, model, clip)
    if not phrases:
        raise UserError(
            f"{NODE_NAME}: there is no phrase; write parts of the prompt into `phrases`, one per line, or connect a "
            "`layout` that has some."
        )
    check_phrases(phrases)
    spans = tuple(span.by_encoder for span in find_spans(clip, text, phrases, NODE_NAME))
    readings = read_prompt(clip, text, NODE_NAME).encoders
    content = tuple(tuple(position for position, _ in reading.content) for reading in readings)
    known = KnownPrompt.of(clip, text, NODE_NAME)
    chosen = family.blocks(model.model.diffusion_model, blocks)
    recording = AttentionRecording(text, tuple(phrases))
    recorded = model.clone()
    set_hooks(
        recorded,
        recording=_Recording(recording, spans, content, known, chosen, _model_name(model)),
    )
    return recorded, recording


@dataclass(frozen=True, eq=False)
class _Recording:
    """What this node adds to a model's sampling; see `sampling.hook.RecordingHook`."""

    recording: AttentionRecording
    spans: tuple[Parts, ...]
    content: Parts
    known: KnownPrompt
    blocks: tuple[BlockId, ...]
    model_name: str
    node_name: str = NODE_NAME

    def start(self, begin: SamplerStart) -> RecordingRun:
        targets = self._targets(positive_conditions(begin.denoiser.inner_model))
        return RecordingRun(self, begin, targets)

    def _targets(self, conditions: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], TapTarget]]:
        targets = []
        for condition in conditions:
            offsets = self.known.offsets_in(condition.get("cross_attn"))
            spans = tuple(placed(parts, offsets) for parts in self.spans)
            # Where the text encoders have different prompts, the one that has this one may know none of a phrase.
            if not all(spans):
                continue
            if condition.get("area") is not None:
                raise UserError(
                    f"{NODE_NAME}: the recorded prompt is limited to an area of the picture; limit it by a mask "
                    "(Conditioning Set Mask), or record another prompt."
                )
            content = placed(self.content, offsets)
            targets.append((condition, TapTarget(condition["cross_attn"].shape[1], spans, content)))
        if not targets:
            raise UserError(
                f'{NODE_NAME}: the positive prompt of the sampler is not "{self.recording.prompt}" encoded by the same '
                "text encoder; give this node the `text` and `clip` of the positive prompt, or connect its model only "
                "to the sampler of that prompt."
            )
        return targets


class RecordingRun:
    """Records one sampling run.

    Parameters
    ----------
    targets : list of (mapping, TapTarget)
        The positive conditionings that hold the prompt.

    Raises
    ------
    UserError
        When the host spreads the evaluation over several GPUs.
    """

    def __init__(
        self, hook: _Recording, begin: SamplerStart, targets: list[tuple[Mapping[str, Any], TapTarget]]
    ) -> None:
        if "multigpu_clones" in begin.extra_args.get("model_options", {}):
            raise UserError(f"{NODE_NAME} works on one GPU only; remove the node that spreads the model over several.")
        self._hook = hook
        self._begin = begin
        self._targets = targets
        self._unet = begin.denoiser.inner_model.inner_model.diffusion_model
        self._pass = ConditionalPass(begin.denoiser, begin.extra_args, hook.blocks)
        self._accumulator = hook.recording.accumulator(len(begin.sigmas) - 1, begin.latents)
        self._unguided: list[BlockMaps] | None = None

    def before_update(self, x: torch.Tensor, sigma: torch.Tensor) -> None:
        """Evaluate the prompt on the latents that guidance is about to change.

        Parameters
        ----------
        x : Tensor (B, C, H, W)
            Not changed.
        sigma : Tensor (B,)
        """
        with torch.no_grad():
            latents = self._pass.blend_inpainted(x, sigma)
            self._unguided = [
                reduce_block(block, target.spans, target.content)
                for condition, target in self._targets
                for block in self._pass.attention(condition, latents, sigma)
            ]

    def watch(self, step: int, sigma: float, model_options: Mapping[str, Any]) -> tuple[dict[str, Any], Callable]:
        """Prepare the recording of the evaluation that begins a step.

        Parameters
        ----------
        model_options : mapping
            Of the evaluation; not changed.

        Returns
        -------
        model_options : dict
            With the tap.
        done : callable
            To be called after the evaluation.
        """
        targets = {condition["uuid"]: target for condition, target in self._targets}
        tap = AttentionTap(self._unet, self._hook.blocks, targets)

        def done() -> None:
            self._accumulator.add(step, sigma, tap.maps(), self._unguided)
            self._unguided = None

        return with_attention_patch(model_options, tap), done

    def finish(self, samples: torch.Tensor) -> None:
        """Keep the record under the result of the run.

        Parameters
        ----------
        samples : Tensor (B, C, H, W)
        """
        begin, recording = self._begin, self._hook.recording
        height, width = samples.shape[-2:]
        record = AttentionRecord(
            recording.prompt,
            recording.phrases,
            self._boxes(),
            self._accumulator.frames(),
            len(begin.sigmas) - 1,
            height,
            width,
            begin.sampler_name,
            begin.extra_args.get("seed"),
            self._hook.model_name,
        )
        recording.keep(samples, record)

    def _boxes(self) -> tuple[Place | None, ...]:
        """Boxes that layout guidance has for the phrases, told by their tokens."""
        boxes: list[Place | None] = [None] * len(self._hook.spans)
        for condition, target in self._targets:
            for region in condition.get(REGIONS_KEY, ()):
                for index, span in enumerate(target.spans):
                    if region.tokens and set(region.tokens) <= set(span):
                        boxes[index] = region.place
        return tuple(boxes)


def _model_name(model: ModelPatcher) -> str:
    family = type(model.model.model_config).__name__
    loaded_with = (getattr(model, "cached_patcher_init", None) or (None, ()))[1]
    files = [Path(value).name for value in loaded_with if isinstance(value, str)]
    return f"{files[0]} ({family})" if files else family
