"""The miniature world as the host sees it: the same numbers as in its own training code."""

from __future__ import annotations

import pytest
import torch

from support import host

PROMPT = "a photo of a red cat and a boat on grass"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    host.start()
    import comfy.sd

    from miniworld.networks.checkpoint import assemble

    path = assemble(tmp_path_factory.mktemp("miniworld") / "miniworld.safetensors")
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path))
    return model, clip, vae


@torch.no_grad()
def contexts(*captions: str) -> torch.Tensor:
    """What our own text encoder makes of captions."""
    from miniworld.networks.checkpoint import load_text_encoder
    from miniworld.networks.text_encoder import TextEncoder

    encoder = TextEncoder()
    encoder.load_state_dict(load_text_encoder())
    return encoder.encode(list(captions))


def test_host_takes_it_for_stable_diffusion_1(world):
    model, _, vae = world
    assert type(model.model.model_config).__name__ == "SD15"
    assert type(vae.first_stage_model).__name__ == "TAESD"
    assert model.model.model_type.name == "EPS"


def test_text_encoder_agrees_with_the_hosts_clip(world):
    _, clip, _ = world
    theirs = clip.encode_from_tokens_scheduled(clip.tokenize(PROMPT))[0][0].float()
    ours = contexts(PROMPT)
    assert theirs.shape == ours.shape == (1, 77, 768)
    assert (theirs - ours).abs().max() < 0.02 * ours.abs().max()


def test_unet_agrees_with_the_hosts(world):
    from miniworld.networks.checkpoint import WEIGHTS, load_small
    from miniworld.networks.unet import UNet

    ours = UNet()
    ours.load_state_dict(load_small(WEIGHTS / "unet.safetensors")[0])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 16, 16, generator=generator)
    t = torch.tensor([20.0, 700.0])
    context = contexts(PROMPT, "")
    theirs = world[0].model.diffusion_model
    with torch.no_grad():
        expected = ours(x, t, context)
        got = theirs(x.to(theirs.dtype), t, context=context.to(theirs.dtype)).float()
    assert (expected - got).norm() < 0.01 * expected.norm()


def test_leaving_out_the_zeros_changes_roundings_only(world, tmp_path):
    import comfy.sd

    from miniworld.networks.checkpoint import assemble
    from miniworld.networks.compact import leave_out_zeros, multiply_in_bfloat16, text_model_of

    path = assemble(tmp_path / "miniworld.safetensors")
    model, clip, _, _ = comfy.sd.load_checkpoint_guess_config(str(path), output_vae=False)
    full = world[0].model.diffusion_model
    leave_out_zeros(model.model.diffusion_model, text_model_of(clip))
    whole, compact = (c.encode_from_tokens_scheduled(c.tokenize(PROMPT))[0][0].float() for c in (world[1], clip))
    assert (whole - compact).abs().max() < 2e-3 * whole.abs().max()
    x, t = torch.randn(1, 4, 16, 24, generator=torch.Generator().manual_seed(0)), torch.tensor([700.0])
    with torch.no_grad():
        expected, got = (net(x, t, context=whole) for net in (full, model.model.diffusion_model))
    assert (expected - got).abs().max() < 1e-4 * expected.abs().max()
    small, large = (sum(p.numel() for p in net.parameters()) for net in (model.model.diffusion_model, full))
    assert small < 0.9 * large
    multiply_in_bfloat16(model.model.diffusion_model)
    with torch.no_grad():
        coarse = model.model.diffusion_model(x, t, context=whole)
    assert coarse.dtype == torch.float32 and 0 < (expected - coarse).norm() < 0.03 * expected.norm()


def test_autoencoder_agrees_with_the_hosts(world):
    import numpy as np

    from miniworld.networks.autoencoder import Autoencoder
    from miniworld.networks.checkpoint import WEIGHTS, load_small
    from miniworld.networks.diffusion import LatentScale
    from miniworld.world.scenes import render_scene

    ours = Autoencoder()
    ours.load_state_dict(load_small(WEIGHTS / "autoencoder.safetensors")[0])
    metadata = load_small(WEIGHTS / "unet.safetensors")[1]
    scale = LatentScale(float(metadata["latent_shift"]), float(metadata["latent_scale"]))
    picture = torch.from_numpy(render_scene(np.random.default_rng(0)).image.copy())[None].float() / 255
    model, _, vae = world
    with torch.no_grad():
        expected = scale(ours.encode(picture.movedim(-1, 1)))
        got = model.model.process_latent_in(vae.encode(picture))
        shown = vae.decode(vae.encode(picture)).movedim(-1, 1)
        restored = ours.decode(ours.encode(picture.movedim(-1, 1))).clamp(0, 1)
    assert torch.allclose(got, expected, atol=0.02)
    assert (shown - restored).abs().mean() < 0.005
