"""Textual inversion on SDXL against a plain diffusers loop on the same weights."""

from __future__ import annotations

import pytest
import torch

from support import checkpoints
from support.models.families import FamilyCase
from support.models.training_case import SIZE, photos, short_config, train

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 20


def test_twenty_steps_agree_with_a_plain_diffusers_loop(sdxl: FamilyCase) -> None:
    diffusers_inversion = pytest.importorskip("support.models.diffusers_inversion_xl")
    from compinv_core.host.learning.photos import encode_photos
    from compinv_core.training.events import nobody

    model, clip, vae = sdxl.loaded
    sentences = ["a photo of {}", "a picture showing {} in the middle"]
    case = short_config(steps=STEPS, templates=tuple(sentences), learning_rate=0.005)
    result = train((model, clip, vae), case)
    with torch.inference_mode(False):
        latents, _ = encode_photos(model, vae, photos(), None, 8, nobody)
        plain = diffusers_inversion.DiffusersInversionXl(
            checkpoints.build("sdxl"), sentences, "cat", 0.005, (SIZE, SIZE)
        )
    generator = torch.Generator().manual_seed(case.config.seed)
    losses = []
    for _ in range(STEPS):
        sentence = int(torch.randint(len(sentences), (1,), generator=generator))
        chosen = torch.randint(len(latents), (case.config.batch_size,), generator=generator)
        timesteps = torch.randint(1000, (case.config.batch_size,), generator=generator)
        noise = torch.randn((case.config.batch_size, *latents.shape[1:]), generator=generator)
        losses.append(plain.step(latents[chosen], noise, timesteps, sentence))
    assert max(abs(a - b) for a, b in zip(losses, result.losses, strict=True)) < 1e-5
    ours = sdxl.parts(result.concepts[0].vectors[0])
    for mine, theirs in zip(ours.values(), plain.vectors, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4)
