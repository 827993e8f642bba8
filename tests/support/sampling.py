"""In-process sampling on the host's own objects, in inference mode as its executor does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from . import host

PROMPT = "a cat and a ball"


def encode(text: str = PROMPT, clip: Any = None) -> list:
    """CONDITIONING of a prompt, as CLIPTextEncode makes it; by default with the tiny checkpoint's CLIP."""
    clip = clip or host.load("tiny")[1]
    with torch.inference_mode():
        return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def noise_like(batch: int = 1, height: int = 8, width: int = 8, seed: int = 5) -> torch.Tensor:
    """Noise that KSampler would draw: image i of a batch is the same in every batch size."""
    return torch.randn(batch, 4, height, width, generator=torch.Generator().manual_seed(seed))


def sample(
    model: Any,
    positive: list,
    noise: torch.Tensor | None = None,
    sampler: str = "euler",
    clip: Any = None,
    **options: Any,
) -> torch.Tensor:
    """Sample four steps without classifier-free guidance, unless `options` say otherwise.

    The empty negative prompt is encoded with `clip`, by default the tiny checkpoint's.
    """
    import comfy.sample

    noise = noise_like() if noise is None else noise
    settings = dict(steps=4, cfg=1.0, scheduler="normal", denoise=1.0, latent_image=torch.zeros_like(noise)) | options
    with torch.inference_mode():
        return comfy.sample.sample(
            model,
            noise,
            settings.pop("steps"),
            settings.pop("cfg"),
            sampler,
            settings.pop("scheduler"),
            positive,
            encode("", clip),
            settings.pop("latent_image"),
            disable_pbar=True,
            seed=11,
            **settings,
        )


def probe(model: Any, positive: list, function: Callable, noise: torch.Tensor | None = None, **options: Any) -> None:
    """Call `function(denoiser, x, sigmas, extra_args)` where a sampler of the host would start, in inference mode.

    The empty negative prompt is encoded with the option `clip`, by default the tiny checkpoint's.
    """
    import comfy.sample
    import comfy.samplers

    def sampler_function(denoiser, x, sigmas, extra_args, callback, disable):
        function(denoiser, x, sigmas, extra_args)
        return x

    noise = noise_like() if noise is None else noise
    clip = options.pop("clip", None)
    negative = encode("") if clip is None else encode("", clip)
    sigmas = torch.tensor([6.0, 3.0, 0.0])
    with torch.inference_mode():
        comfy.sample.sample_custom(
            model,
            noise,
            1.0,
            comfy.samplers.KSAMPLER(sampler_function),
            sigmas,
            positive,
            negative,
            torch.zeros_like(noise),
            disable_pbar=True,
            seed=11,
            **options,
        )
