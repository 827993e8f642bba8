"""A layout from the model itself: where it begins to paint things while no learned word disturbs it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import comfy.sample
import torch

from ... import logger
from ...basics.errors import UserError, quoted
from ...boxes.layout import Layout
from ...layouts.from_maps import boxes_from_maps
from ...words.nouns import coco80
from ...words.phrases import check_phrases, spoken
from ..family import Family
from ..painting import Sampling
from ..progress import stop_if_asked
from ..sampling.conditional_pass import positive_conditions
from ..sampling.hook import SamplerStart, set_hooks
from ..text.encoder import load_anchors
from ..text.reading import read_prompt
from ..text.spans import find_spans
from ..unet_blocks import BlockId
from .prediction import phrase_noun
from .sharpened import SharpenedMaps

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP

NODE_NAME = "Layout From Model"
BLOCKS = "middle and first up"


def layout_from_model(
    model: ModelPatcher,
    clip: CLIP,
    text: str,
    phrases: Sequence[str],
    width: int,
    height: int,
    seed: int,
    sampling: Sampling,
    looked: int,
) -> Layout:
    """Run the first steps of a sampling with plain nouns, and box where each phrase's attention gathers.

    Parameters
    ----------
    text : str
        The prompt.
    phrases : sequence of str
        Parts of the prompt, all different; ``embedding:NAME`` is a learned word.
    width, height : int
        Size of the picture in pixels.
    looked : int
        How many of the sampling's steps are run.

    Raises
    ------
    UserError
        When the model is not supported, or a phrase is not in the prompt.
    """
    maps = noun_maps(model, clip, text, phrases, width, height, seed, sampling, looked)
    return Layout(tuple(phrases), boxes_from_maps(maps), width, height)


@torch.inference_mode()
def noun_maps(
    model: ModelPatcher,
    clip: CLIP,
    text: str,
    phrases: Sequence[str],
    width: int,
    height: int,
    seed: int,
    sampling: Sampling,
    looked: int,
) -> torch.Tensor:
    """Return the sharpened attention of each phrase, (P, h, w) in cells of the latents; see `layout_from_model`."""
    family = Family.of(NODE_NAME, model, clip)
    check_phrases(phrases)
    if not phrases:
        raise UserError(f"{NODE_NAME}: there is no phrase; write parts of the prompt into `phrases`, one per line.")
    plain, *plain_phrases = with_nouns(clip, text, phrases)
    spans = [span.tokens for span in find_spans(clip, plain, plain_phrases, NODE_NAME)]
    watched = model.clone()
    blocks = family.blocks(model.model.diffusion_model, BLOCKS)
    hook = _Look(spans, blocks)
    set_hooks(watched, guidance=None, recording=hook)
    latent = torch.zeros(1, family.latent_channels, *family.latent_size(height, width))
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(each)) for each in (plain, ""))
    comfy.sample.sample(
        watched,
        comfy.sample.prepare_noise(latent, seed),
        sampling.steps,
        sampling.cfg,
        sampling.sampler_name,
        sampling.scheduler,
        positive,
        negative,
        latent,
        last_step=looked,
        callback=stop_if_asked,
        disable_pbar=True,
        seed=seed,
    )
    with torch.inference_mode(False):
        return hook.maps[0].total.clone()


def with_nouns(clip: CLIP, text: str, phrases: Sequence[str]) -> list[str]:
    """Return the prompt, and its phrases, with every learned word replaced by its class noun.

    Where the class noun stands beside it in its phrase ("embedding:my-cat cat") the word is left out; otherwise the
    noun nearest to it in embedding space takes its place.
    """
    names = sorted(set(read_prompt(clip, text, NODE_NAME).names), key=len, reverse=True)
    texts = [text, *phrases]
    for name in names:
        word = re.compile(
            rf"\(\s*embedding:{re.escape(name)}\s*:[\d.]+\s*\)|(?:embedding:)?(?<![\w-]){re.escape(name)}(?![\w-])"
        )
        beside = any(word.search(phrase) and spoken(word.sub(" ", phrase)) for phrase in phrases)
        noun = "" if beside else _nearest(clip, name)
        texts = [" ".join(word.sub(noun, each).split()) for each in texts]
    return texts


def _nearest(clip: CLIP, name: str) -> str:
    word = f"embedding:{name}"
    noun = phrase_noun(clip, read_prompt(clip, word, NODE_NAME), load_anchors(clip, coco80()))
    logger.info("%s: %s is taken for %s.", NODE_NAME, quoted(word), quoted(noun))
    return noun


@dataclass(eq=False)
class _Look:
    """Looks at a sampling; see `sampling.hook.RecordingHook`."""

    spans: Sequence[Sequence[int]]
    blocks: tuple[BlockId, ...]
    node_name: str = NODE_NAME

    def __post_init__(self) -> None:
        self.maps: list[SharpenedMaps] = []

    def start(self, begin: SamplerStart) -> _Watch:
        guider = begin.denoiser.inner_model
        (condition,) = positive_conditions(guider)
        unet, size = guider.inner_model.diffusion_model, begin.latents.shape[-2:]
        self.maps.append(SharpenedMaps(unet, self.blocks, condition["uuid"], self.spans, size))
        return _Watch(self.maps[-1])


@dataclass(frozen=True)
class _Watch:
    maps: SharpenedMaps

    def before_update(self, x: torch.Tensor, sigma: torch.Tensor) -> None: ...

    def watch(self, step: int, sigma: float, model_options: Mapping[str, Any]) -> tuple[dict[str, Any], Callable]:
        return self.maps.added_to(model_options), lambda: None

    def finish(self, samples: torch.Tensor) -> None: ...
