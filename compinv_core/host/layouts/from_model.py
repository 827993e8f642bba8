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
from ...basics.settings import changed, check_settings
from ...boxes.layout import Layout
from ...layouts.from_maps import boxes_from_maps
from ...words.nouns import coco80
from ...words.phrases import check_phrases, spoken
from ..family import Family
from ..progress import stop_if_asked
from ..sampling.conditional_pass import positive_conditions
from ..sampling.hook import SamplerStart, set_hooks
from ..text.encoder import load_anchors
from ..text.reading import read_prompt
from ..text.spans import find_spans
from ..unet_blocks import BlockId
from .collection_config import CollectionConfig
from .prediction import phrase_noun
from .sharpened import SharpenedMaps

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP

NODE_NAME = "Layout From Model"
_BLOCKS = "middle and first up"
_SHARE = 0.1


@dataclass(frozen=True)
class LookConfig:
    """What sampling is begun, and how; the fields are the node's inputs."""

    width: int = changed(CollectionConfig, "width", 512, meaning="Width of the picture in pixels")
    height: int = changed(CollectionConfig, "height", 512, meaning="Height of the picture in pixels")
    seed: int = changed(CollectionConfig, "seed", 0, meaning="That of the sampler which paints, whose noise it begins")
    steps: int = changed(CollectionConfig, "steps", 20, meaning="Steps of the sampler which paints; a tenth is run")
    cfg: float = changed(CollectionConfig, "cfg", 7.5)
    sampler_name: str = changed(CollectionConfig, "sampler_name", "dpmpp_2m")
    scheduler: str = changed(CollectionConfig, "scheduler", "normal")

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def looked(self) -> int:
        """How many of the steps are run."""
        return max(1, round(self.steps * _SHARE))


def layout_from_model(model: ModelPatcher, clip: CLIP, text: str, phrases: Sequence[str], config: LookConfig) -> Layout:
    """Run the first steps of a sampling with plain nouns, and box where each phrase's attention gathers.

    Parameters
    ----------
    text : str
        The prompt.
    phrases : sequence of str
        Parts of the prompt, all different; ``embedding:NAME`` is a learned word.

    Returns
    -------
    Layout
        The same for the same seed; see `layouts.from_maps`.

    Raises
    ------
    UserError
        When the model is not supported, there is no phrase, or one is not in the prompt.
    """
    maps = noun_maps(model, clip, text, phrases, config)
    return Layout(tuple(phrases), boxes_from_maps(maps), config.width, config.height)


@torch.inference_mode()
def noun_maps(model: ModelPatcher, clip: CLIP, text: str, phrases: Sequence[str], config: LookConfig) -> torch.Tensor:
    """Return the sharpened attention of each phrase, (P, h, w) in cells of the latents; see `layout_from_model`."""
    family = Family.of(NODE_NAME, model, clip)
    check_phrases(phrases)
    if not phrases:
        raise UserError(f"{NODE_NAME}: there is no phrase; write parts of the prompt into `phrases`, one per line.")
    plain, *plain_phrases = with_nouns(clip, text, phrases)
    spans = [span.tokens for span in find_spans(clip, plain, plain_phrases, NODE_NAME)]
    look = _Look(spans, family.blocks(model.model.diffusion_model, _BLOCKS))
    watched = model.clone()
    set_hooks(watched, guidance=None, recording=look)
    latent = torch.zeros(1, family.latent_channels, *family.latent_size(config.height, config.width))
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(each)) for each in (plain, ""))
    comfy.sample.sample(
        watched,
        comfy.sample.prepare_noise(latent, config.seed),
        config.steps,
        config.cfg,
        config.sampler_name,
        config.scheduler,
        positive,
        negative,
        latent,
        last_step=config.looked,
        callback=stop_if_asked,
        disable_pbar=True,
        seed=config.seed,
    )
    with torch.inference_mode(False):
        return look.maps[0].total.clone()


def with_nouns(clip: CLIP, text: str, phrases: Sequence[str]) -> list[str]:
    """Return the prompt, and its phrases, with every learned word replaced by its class noun.

    Where the class noun stands beside it in its phrase ("embedding:my-cat cat") the word is left out; otherwise the
    noun nearest to it in embedding space takes its place.
    """
    texts = [text, *phrases]
    for name in sorted(set(read_prompt(clip, text, NODE_NAME).names), key=len, reverse=True):
        beside = any(_holds(each, name) and spoken(_without(each, name, "")) for each in texts[1:])
        noun = "" if beside else _nearest(clip, name)
        texts = [_without(each, name, noun) for each in texts]
    return texts


def _holds(text: str, name: str) -> bool:
    return _without(text, name, "") != " ".join(text.split())


def _without(text: str, name: str, noun: str) -> str:
    """Put a noun in the place of a learned word; phrases may leave out the word's ``embedding:``."""
    word = f"embedding:{name}" if f"embedding:{name}" in text else name
    word = re.escape(word) + r"(?![\w-])"
    weighted = rf"\(\s*{word}\s*:[\d.]+\s*\)"
    return " ".join(re.sub(rf"{weighted}|(?<![\w-]){word}", lambda _: noun, text).split())


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
        identities = {condition["uuid"] for condition in positive_conditions(guider)}
        unet, size = guider.inner_model.diffusion_model, (begin.latents.shape[-2], begin.latents.shape[-1])
        self.maps.append(SharpenedMaps(unet, self.blocks, identities, self.spans, size))
        return _Watch(self.maps[-1])


@dataclass(frozen=True)
class _Watch:
    maps: SharpenedMaps

    def before_update(self, x: torch.Tensor, sigma: torch.Tensor) -> None: ...

    def watch(self, step: int, sigma: float, model_options: Mapping[str, Any]) -> tuple[dict[str, Any], Callable]:
        return self.maps.added_to(model_options), lambda: None

    def finish(self, samples: torch.Tensor) -> None: ...
