"""The random checkpoints are what they are meant to be: the host recognises them, encodes with them and samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from support import checkpoints, host

# Class of the host's configuration, prediction, latent format and its scale, width of the context, and of the pooled
# output.
KINDS = {
    "sdxl": ("SDXL", "EPS", "SDXL", 0.13025, 2048, 1280),
    "sdxl_v": ("SDXL", "V_PREDICTION", "SDXL", 0.13025, 2048, 1280),
    "sd2": ("SD20", "EPS", "SD15", 0.18215, 1024, 1024),
    "sd2_v": ("SD20", "V_PREDICTION", "SD15", 0.18215, 1024, 1024),
}
REFUSED = {"refiner": "SDXLRefiner", "inpaint": "SD15", "sdxl_inpaint": "SDXL", "unclip": "SD21UnclipH"}


def encode(clip: Any, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        ((context, extra),) = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    return context, extra["pooled_output"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_host_knows_the_kind_and_samples_with_it(kind: str) -> None:
    model, clip, vae = host.load_anew(kind)
    import comfy.sample

    config, prediction, latents, scale, width, pooled_width = KINDS[kind]
    assert config in [parent.__name__ for parent in type(model.model.model_config).__mro__]
    assert model.model.model_type.name == prediction
    assert type(model.model.latent_format).__name__ == latents
    assert model.model.latent_format.scale_factor == scale
    assert vae.first_stage_model.vae_scale.item() == pytest.approx(scale, rel=1e-3)

    context, pooled = encode(clip, "a photo of a cat")
    other, other_pooled = encode(clip, "a photo of a dog")
    assert context.shape == (1, 77, width) and pooled.shape == (1, pooled_width)
    assert context.isfinite().all() and not torch.equal(context, other) and not torch.equal(pooled, other_pooled)

    positive, negative = [[context, {"pooled_output": pooled}]], [[other, {"pooled_output": other_pooled}]]
    latent = torch.zeros(1, 4, 8, 16)
    with torch.inference_mode():
        noise = comfy.sample.prepare_noise(latent, 1)
        samples = comfy.sample.sample(
            model, noise, 2, 5.0, "euler", "normal", positive, negative, latent, disable_pbar=True
        )
        picture = vae.decode(samples)
    assert samples.isfinite().all() and samples.std() > 0.1
    assert picture.shape == (1, 64, 128, 3) and picture.isfinite().all()


@pytest.mark.parametrize("kind", REFUSED)
def test_the_host_knows_the_kinds_that_the_pack_refuses(kind: str) -> None:
    model, clip, _ = host.load_anew(kind)
    assert REFUSED[kind] in [parent.__name__ for parent in type(model.model.model_config).__mro__]
    assert clip is None
    assert model.model.diffusion_model.in_channels == (9 if "inpaint" in kind else 4)


@pytest.mark.parametrize("kind", ["sd2", "sdxl"])
def test_layers_of_zeros_change_nothing(kind: str) -> None:
    # What the loader node, which cannot be told of fewer layers, is given in their place.
    _, clip, _ = host.load(kind)
    import comfy.sd

    deep = comfy.sd.load_checkpoint_guess_config(
        str(checkpoints.build(f"{kind}_deep")), output_model=False, output_vae=False
    )[1]
    for ours, theirs in zip(encode(clip, "a cat"), encode(deep, "a cat"), strict=True):
        assert torch.equal(ours, theirs)
