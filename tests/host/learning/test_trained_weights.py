"""Weights in training in the real host: float32 copies, their casts in half precision, and the originals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from support.models.training_case import Loaded, short_tuning, tune

pytestmark = pytest.mark.usefixtures("one_thread")
NAME = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"


@pytest.fixture
def half(loaded: Loaded) -> Loaded:
    """The models, computing in bfloat16 as the host's Model Compute Dtype node has it."""
    model, clip, vae = loaded
    model = model.clone()
    model.set_model_compute_dtype(torch.bfloat16)
    return model, clip, vae


@pytest.fixture
def pictures() -> Iterator[list[Any]]:
    """The previews shown while the test runs."""
    import comfy.utils

    shown: list[Any] = []

    def show(value: int, total: int, preview: Any, node_id: Any = None) -> None:
        if preview is not None:
            shown.append(preview[1].tobytes())

    comfy.utils.set_progress_bar_global_hook(show)
    yield shown
    comfy.utils.set_progress_bar_global_hook(None)


def one_pass(session: Any) -> torch.Tensor:
    from compinv_core.learning.condition import Condition

    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=generator)
    context = torch.randn(1, 77, 768, generator=generator)
    return session.denoise(latents, noise, torch.tensor([500]), Condition(context))[0]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_half_precision_trains_float32_copies_through_their_casts(half: Loaded, checkpointing: bool) -> None:
    from compinv_core.host.learning.session import training_session

    model, clip, _ = half
    network = model.model.diffusion_model
    with training_session(model, clip, (1, 4, 8, 8)):
        pass  # leaves ordinary parameters in the place of the executor's, over the same memory
    originals = dict(network.named_parameters())
    with training_session(model, clip, (1, 4, 8, 8), lambda name: True, checkpointing) as (session, _):
        parameters = session.weights.parameters
        assert parameters.keys() == originals.keys() and all(p.dtype == torch.float32 for p in parameters.values())
        before = one_pass(session)
        assert before.dtype == torch.bfloat16
        before.float().square().mean().backward()
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in parameters.values())
        # Too small a change for bfloat16 to hold beside the weight, again and again, until together they show.
        weight, gradient = parameters[NAME], parameters[NAME].grad
        assert gradient is not None and gradient.abs().max() > 0
        change = 2.0**-11 * weight.detach().abs()
        for _ in range(16):
            weight.data += change
        after = one_pass(session)
        assert torch.equal(network.get_submodule(NAME.removesuffix(".weight")).weight, weight.to(torch.bfloat16))
        assert not torch.equal(after, before)
    restored = dict(network.named_parameters())
    assert restored.keys() == originals.keys() and all(restored[name] is originals[name] for name in originals)


def test_checkpointing_changes_no_bit_in_half_precision(half: Loaded) -> None:
    plain, twice = (
        tune(half, short_tuning("dreambooth", prior_weight=0.0, gradient_checkpointing=choice))
        for choice in (False, True)
    )
    assert plain.losses == twice.losses
    assert all(torch.equal(plain.lora[name], twice.lora[name]) for name in plain.lora)


def test_a_preview_in_half_precision_shows_the_last_update(half: Loaded, pictures: list[Any]) -> None:
    # One step at two rates of the weights, and the same small one of the word: only the update tells them apart.
    for rate in (1e-9, 1e-2):
        config = short_tuning(
            "custom_diffusion", steps=1, learning_rate=rate, token_learning_rate=1e-9, prior_weight=0.0, preview_every=1
        )
        tune(half, config)
    slow, fast = pictures
    assert slow != fast
