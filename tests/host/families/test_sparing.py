"""Guidance that computes layers twice: the same loss and gradient, in a part of the memory."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import Any

import pytest
import torch

from support import host
from support.models.full_size import SHAPES, Kept, efficient_attention, full_network
from support.models.training_case import load_as_executor
from support.sampling import PROMPT, encode, noise_like, probe

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", ["tiny", "sd2", "sdxl"])
def test_loss_and_gradient_are_those_of_the_plain_pass(kind: str) -> None:
    host.start()
    import node_helpers

    from compinv_core.host.family import Family
    from compinv_core.host.spatial.objective import REGIONS_KEY, AttentionObjective, Region
    from compinv_core.spatial.settings import GuidanceConfig

    model, clip, _ = load_as_executor(kind)
    blocks = Family.of("Test Node", model).blocks(model.model.diffusion_model, "middle and first up")
    regions = (Region("a cat", (1, 2), (0.0, 0.0, 0.5, 1.0)), Region("a ball", (4, 5), (0.5, 0.25, 1.0, 1.0)))
    positive = node_helpers.conditioning_set_values(encode(PROMPT, clip), {REGIONS_KEY: regions})
    found: list[tuple[torch.Tensor, torch.Tensor]] = []

    def function(denoiser: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: dict) -> None:
        for sparing in (False, True):
            objective = AttentionObjective(denoiser, extra_args, blocks, GuidanceConfig(), sparing=sparing)
            with torch.inference_mode(False), torch.enable_grad():
                leaf = x.detach().clone().requires_grad_(True)
                loss = objective(leaf, torch.full((2,), 6.0))
                found.append((loss.detach(), *torch.autograd.grad(loss.sum(), leaf)))

    probe(model, positive, function, noise_like(2, 16, 24), clip=clip)
    (plain, gradient), (loss, again) = found
    assert torch.equal(loss, plain) and gradient.abs().sum() > 0
    torch.testing.assert_close(again, gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))


def kept_by_guidance(sparing: bool) -> int:
    """Bytes that a guidance pass of SDXL itself keeps for backward, at 1024² in half precision."""
    network = full_network("sdxl", torch.float16).requires_grad_(False)
    from compinv_core.host.checkpointing import gradient_checkpointing
    from compinv_core.host.family import SDXL
    from compinv_core.host.sampling.capture import AttentionCapture, CaptureComplete, SparingCapture
    from compinv_core.host.sampling.conditional_pass import TWICE

    blocks = SDXL.blocks(network, "middle and first up")
    capture: Any = SparingCapture(network, blocks, [1, 2, 4]) if sparing else AttentionCapture(network, blocks)
    options = {"optimized_attention_override": efficient_attention, "patches": {"attn2_patch": [capture]}}
    half = {"device": "meta", "dtype": torch.float16}
    latents = torch.empty(1, 4, 128, 128, **half).requires_grad_(True)
    context, told = torch.empty(1, 77, SHAPES["sdxl"]["context_dim"], **half), torch.empty(1, 2816, **half)
    kept, without = Kept(network), {capture.last} if sparing else set()
    with torch.enable_grad(), kept.hooks:
        with gradient_checkpointing(network, sparing, TWICE, without), suppress(CaptureComplete):
            network(latents, torch.empty(1, device="meta"), context=context, y=told, transformer_options=options)
        if sparing:
            capture.recorded(nullcontext)
    return kept.total


def test_guidance_of_sdxl_keeps_little() -> None:
    assert kept_by_guidance(False) > 4e9
    # Beside it, what one layer computes in between.
    assert kept_by_guidance(True) < 0.5e9


@pytest.mark.parametrize("backward", [True, False])
def test_what_was_evaluated_is_let_go(backward: bool) -> None:
    """Guidance ends with an evaluation that no gradient follows, whose graph must not stay."""
    import gc
    import weakref

    from compinv_core.host.checkpointing import gradient_checkpointing
    from compinv_core.host.family import SDXL
    from compinv_core.host.sampling.capture import CaptureComplete, SparingCapture
    from compinv_core.host.sampling.conditional_pass import TWICE

    model, clip, _ = load_as_executor("sdxl")
    seen: list[Any] = []

    def function(denoiser: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: dict) -> None:
        import comfy.samplers

        from compinv_core.host.inference import InferenceTensorGuard
        from compinv_core.host.sampling.capture import with_attention_patch

        network = denoiser.inner_model.inner_model.diffusion_model
        capture = SparingCapture(network, SDXL.blocks(network, "middle"), [1, 2])
        seen.append(weakref.ref(capture))
        with torch.inference_mode(False), torch.enable_grad(), InferenceTensorGuard():
            leaf = x.detach().clone().requires_grad_(True)
            (condition,) = denoiser.inner_model.conds["positive"]
            options = with_attention_patch(extra_args["model_options"], capture)
            twice = gradient_checkpointing(network, True, TWICE, {capture.last}, InferenceTensorGuard)
            with twice, suppress(CaptureComplete):
                comfy.samplers.calc_cond_batch(
                    denoiser.inner_model.inner_model, [[condition]], leaf, torch.full((1,), 6.0), options
                )
            found = capture.recorded(InferenceTensorGuard)
            if backward:
                torch.autograd.grad(sum(block.weights.sum() for block in found), leaf)

    probe(model, encode(PROMPT, clip), function, noise_like(1, 8, 8), clip=clip)
    gc.collect()
    assert seen[0]() is None
