"""The location loss of a latent, evaluated on the host's model: its gradient, and what it must not depend on."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from support import host
from support.checkpoints import SHARED_UNET, UNETS
from support.models.controlnet import random_controlnet
from support.sampling import PROMPT, encode, noise_like, probe

BOXES = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.25, 1.0, 1.0))


@pytest.fixture(scope="module")
def core():
    host.start()
    import compinv_core.host.spatial.objective as module
    import compinv_core.spatial.guidance

    module.config = compinv_core.spatial.guidance.GuidanceConfig()
    return module


@pytest.mark.parametrize(
    ("choice", "output_blocks"), [("middle", []), ("first up", [3, 4, 5]), ("all up", [3, 4, 5, 6, 7, 8, 9, 10, 11])]
)
def test_blocks_of_stable_diffusion_1(core, choice: str, output_blocks: list[int]) -> None:
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    from compinv_core.host.family import SD1

    # The network takes its lists apart.
    shape = deepcopy({**SHARED_UNET, **UNETS["full"]})
    with torch.device("meta"):
        unet = UNetModel(**shape, device="meta", operations=comfy.ops.disable_weight_init)
    outputs = [("output", index) for index in output_blocks]
    middle = [("middle", 0)]
    assert list(SD1.blocks(unet, choice)) == (outputs or middle)
    assert list(SD1.blocks(unet, "middle and first up")) == [*middle, ("output", 3), ("output", 4), ("output", 5)]


def blocks_of(denoiser, config) -> tuple:
    from compinv_core.host.family import SD1

    return SD1.blocks(denoiser.inner_model.inner_model.diffusion_model, config.blocks)


def conditioning(core, boxes: tuple = BOXES, text: str = PROMPT, **values) -> list:
    import node_helpers

    regions = (core.Region("a cat", (1, 2), boxes[0]), core.Region("a ball", (4, 5), boxes[1]))
    return node_helpers.conditioning_set_values(encode(text), {core.REGIONS_KEY: regions, **values})


def loss_and_gradient(objective, x: torch.Tensor, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode(False), torch.enable_grad():
        leaf = x.detach().clone().requires_grad_(True)
        loss = objective(leaf, torch.full((x.shape[0],), sigma, dtype=x.dtype))
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), gradient


def evaluate(core, model=None, positive=None, noise=None, **options):
    """Loss and gradient at σ = 6, for one or several settings of the objective."""
    results = []

    def function(denoiser, x, sigmas, extra_args) -> None:
        config = options.get("config", core.config)
        objective = core.AttentionObjective(
            denoiser, extra_args, blocks_of(denoiser, config), config, options.get("truncate", True)
        )
        results.append(loss_and_gradient(objective, x, 6.0))

    probe(
        host.load("tiny")[0] if model is None else model,
        conditioning(core) if positive is None else positive,
        function,
        noise,
        **options.get("sampling", {}),
    )
    return results[0]


def test_gradient_against_central_differences_in_float64(core) -> None:
    """With every weight and input in float64, the relative error stays below 1e-6."""
    import comfy.sd

    from support import checkpoints

    model, *_ = comfy.sd.load_checkpoint_guess_config(
        str(checkpoints.build("tiny")), output_vae=False, output_clip=False
    )
    errors = []

    def function(denoiser, x, sigmas, extra_args) -> None:
        for module in denoiser.inner_model.inner_model.diffusion_model.double().modules():
            if isinstance(getattr(module, "dtype", None), torch.dtype):
                module.dtype = torch.float64
        for condition in denoiser.inner_model.conds["positive"]:
            condition["model_conds"]["c_crossattn"].cond = condition["model_conds"]["c_crossattn"].cond.double()
        objective = core.AttentionObjective(denoiser, extra_args, blocks_of(denoiser, core.config), core.config)
        x = x.double()
        _, gradient = loss_and_gradient(objective, x, 6.0)
        generator = torch.Generator().manual_seed(2)
        for _ in range(3):
            direction = torch.randn(x.shape, generator=generator, dtype=torch.float64)
            step = 1e-4
            above, _ = loss_and_gradient(objective, x + step * direction, 6.0)
            below, _ = loss_and_gradient(objective, x - step * direction, 6.0)
            numeric = float((above - below).sum()) / (2 * step)
            analytic = float((gradient * direction).sum())
            errors.append(abs(numeric - analytic) / abs(analytic))

    probe(model, conditioning(core), function, noise_like(1, 6, 8))
    assert max(errors) < 1e-6, errors


def test_leaving_the_unet_early_changes_nothing(core) -> None:
    loss, gradient = evaluate(core)
    full_loss, full_gradient = evaluate(core, truncate=False)
    assert torch.equal(loss, full_loss)
    torch.testing.assert_close(gradient, full_gradient, rtol=1e-5, atol=1e-9)
    assert gradient.abs().max() > 0


def test_images_of_a_batch_do_not_mix(core) -> None:
    noise = noise_like(3, 8, 12)
    loss, gradient = evaluate(core, noise=noise)
    for index in range(3):
        alone_loss, alone_gradient = evaluate(core, noise=noise[index : index + 1])
        torch.testing.assert_close(loss[index : index + 1], alone_loss, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(gradient[index : index + 1], alone_gradient, rtol=1e-3, atol=1e-6)


def test_a_box_over_everything_has_no_loss(core) -> None:
    loss, gradient = evaluate(core, positive=conditioning(core, ((0, 0, 1, 1), (0, 0, 1, 1))))
    assert loss.abs().max() < 1e-10
    assert gradient.abs().max() < 1e-6


def test_forms_blocks_and_heads_matter(core) -> None:
    base, _ = evaluate(core)
    for change in ({"loss": "linear"}, {"blocks": "middle"}, {"heads": "second half"}, {"loss_per_head": True}):
        other, _ = evaluate(core, config=replace(core.config, **change))
        assert not torch.equal(base, other), change
        assert 0 < other.item() < 1


def test_a_replaced_attention_stays_in_force(core) -> None:
    """Packs like IP-Adapter replace the attention; the capture sees it and leaves it alone."""
    calls = []

    def doubled(q, k, v, extra_options):
        import comfy.ldm.modules.attention as attention

        calls.append(extra_options["block"])
        return attention.optimized_attention(q, k, v, extra_options["n_heads"]) * 2

    model = host.load("tiny")[0].clone()
    model.set_model_attn2_replace(doubled, "input", 1)
    loss, gradient = evaluate(core, model)
    plain_loss, _ = evaluate(core)
    assert ("input", 1) in calls
    assert not torch.equal(loss, plain_loss)
    assert gradient.isfinite().all()


def test_an_attention_kernel_without_backward_is_overridden(core) -> None:
    def no_backward(func, *args, **kwargs):
        raise AssertionError("the kernel that the person chose has no backward pass")

    model = host.load("tiny")[0].clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = no_backward
    loss, _ = evaluate(core, model)
    assert torch.equal(loss, evaluate(core)[0])


def test_outside_the_inpainting_mask_there_is_no_gradient(core) -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :5] = 1.0
    _, gradient = evaluate(core, sampling={"noise_mask": mask})
    assert gradient[..., 5:].abs().max() == 0
    assert gradient[..., :5].abs().max() > 0


def test_boxes_follow_an_area(core) -> None:
    """A conditioning for the left half sees a box of the left half as its whole picture."""
    area = {"area": (8, 4, 0, 0), "strength": 1.0}
    inside, _ = evaluate(core, positive=conditioning(core, ((0, 0, 0.5, 1), (0, 0, 0.5, 1)), **area))
    assert inside.abs().max() < 1e-10
    outside, gradient = evaluate(core, positive=conditioning(core, ((0.5, 0, 1, 1), (0.5, 0, 1, 1)), **area))
    assert outside.item() == 0
    assert gradient.abs().max() == 0


def test_a_conditioning_out_of_its_time_does_not_count(core) -> None:
    loss, gradient = evaluate(core, positive=conditioning(core, start_percent=0.9))
    assert loss.item() == 0
    assert gradient.abs().max() == 0


def test_controlnet_takes_part_without_gradient(core) -> None:
    loss, _ = evaluate(core)
    controlled, gradient = evaluate(core, positive=conditioning(core, control=random_controlnet()))
    assert not torch.equal(loss, controlled)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
