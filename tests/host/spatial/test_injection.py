"""Guidance by injection and by both ways, while the host's samplers run."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from support import host
from support.models.controlnet import random_controlnet
from support.sampling import PROMPT, encode, noise_like, sample

PHRASES, BOXES = ("a cat", "a ball"), ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))
CAT, BALL = [1, 2], [4, 5]


@pytest.fixture(scope="module")
def core() -> Any:
    host.start()
    import compinv_core.host.spatial.guidance as module
    from compinv_core.boxes.layout import Layout
    from compinv_core.spatial.settings import GuidanceConfig

    module.injection = GuidanceConfig(method="injection", injection_strength=1.0, guided_steps=3)
    module.hybrid = replace(module.injection, method="hybrid", strength=3000.0, threshold=0.1)
    module.two_boxes = Layout(PHRASES, BOXES, 64, 64)
    return module


@pytest.fixture(scope="module")
def unguided() -> torch.Tensor:
    return sample(host.load("tiny")[0], encode())


def guide(core: Any, config: Any = None, layout: Any = None, model: Any = None, **options: Any) -> tuple:
    tiny, clip, _ = host.load("tiny")
    with torch.inference_mode():
        return core.apply_layout_guidance(
            tiny if model is None else model,
            clip,
            PROMPT,
            core.two_boxes if layout is None else layout,
            config or core.injection,
            **options,
        )


@pytest.mark.parametrize("method", ["injection", "hybrid"])
def test_off_changes_no_bit(core: Any, unguided: torch.Tensor, method: str) -> None:
    from compinv_core.boxes.layout import Layout

    config = replace(core.injection, method=method)
    assert torch.equal(sample(*guide(core, replace(config, strength=0.0))), unguided)
    assert torch.equal(sample(*guide(core, config, Layout((), (), 64, 64))), unguided)
    nothing = replace(config, injection_strength=0.0, threshold=1.0)
    assert torch.equal(sample(*guide(core, nothing)), unguided)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "uni_pc", "dpm_adaptive"])
def test_every_sampler_is_guided_and_nothing_stays(core: Any, unguided: torch.Tensor, sampler: str) -> None:
    tiny, _, _ = host.load("tiny")
    plain = sample(tiny, encode(), sampler=sampler)
    guided = sample(*guide(core), sampler=sampler)
    assert guided.isfinite().all()
    assert (guided - plain).abs().mean() > 1e-3
    assert torch.equal(sample(tiny, encode()), unguided)


@pytest.mark.parametrize("kind", ["sdxl", "sd2"])
def test_other_families_are_guided(core: Any, kind: str) -> None:
    model, clip, _ = host.load(kind)
    noise = noise_like(1, 16, 16)
    with torch.inference_mode():
        guided, positive = core.apply_layout_guidance(model, clip, PROMPT, core.two_boxes, core.injection)
    moved = sample(guided, positive, noise, clip=clip, steps=2)
    assert moved.isfinite().all()
    assert not torch.equal(moved, sample(model, encode(PROMPT, clip), noise, clip=clip, steps=2))


def test_a_batch_of_two_equals_single_images(core: Any) -> None:
    noise = noise_like(2, 8, 12)
    together = sample(*guide(core), noise, cfg=4.0)
    for index in range(2):
        alone = sample(*guide(core), noise[index : index + 1], cfg=4.0)
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-3, atol=1e-2)


def test_the_attention_is_that_of_biased_logits(core: Any) -> None:
    """Beside a patch of another pack, which sees what the host computes the attention from."""
    from compinv_core.host.unet_blocks import transformer_blocks

    tiny, _, _ = host.load("tiny")
    seen: dict[str, torch.Tensor] = {}

    def before(n, context, value, extra_options):
        if extra_options["block"] == ("middle", 0) and "n" not in seen:
            seen.update(n=n.clone(), context=context.clone(), sigma=extra_options["sigmas"][0].clone())
            seen["uncond"] = torch.tensor(extra_options["cond_or_uncond"])
        return n, context, value

    def after(n, extra_options):
        if extra_options["block"] == ("middle", 0):
            seen.setdefault("out", n.clone())
        return n

    watched = tiny.clone()
    watched.set_model_attn2_patch(before)
    watched.set_model_attn2_output_patch(after)
    sample(*guide(core, model=watched), noise_like(1, 16, 16), cfg=4.0)

    (transformer,) = transformer_blocks(tiny.model.diffusion_model, ("middle", 0))
    attention = transformer.attn2
    with torch.no_grad():
        n, context = seen["n"].clone(), seen["context"].clone()
        query, key, value = attention.to_q(n), attention.to_k(context), attention.to_v(context)
        query, key, value = (each.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for each in (query, key, value))
        logits = query @ key.mT * query.shape[-1] ** -0.5
        cells = n.shape[1]
        side = math.isqrt(cells)
        left = (torch.arange(cells) % side < side / 2).float()[:, None] * 2 - 1
        weight = min(1.0, math.log1p(float(seen["sigma"])) / math.log1p(14.6))
        ranges = (logits.amax(-1) - logits.amin(-1))[..., :: max(1, cells // 32)].mean(-1)[..., None, None]
        cond = int((seen["uncond"] == 0).nonzero())
        biased = logits.clone()
        biased[cond, ..., CAT] += weight * ranges[cond] * left
        biased[cond, ..., BALL] -= weight * ranges[cond] * left
        expected = (biased.softmax(-1) @ value).transpose(1, 2).flatten(2)
        torch.testing.assert_close(seen["out"], attention.to_out(expected), rtol=1e-4, atol=1e-5)


def test_a_mask_that_is_a_box_does_what_the_box_does(core: Any) -> None:
    from compinv_core.boxes.layout import box_masks
    from compinv_core.boxes.places import layout_from_masks

    masks = layout_from_masks(box_masks(BOXES, 64, 64), PHRASES)
    for config in (core.injection, replace(core.hybrid, method="gradient")):
        assert torch.equal(sample(*guide(core, config, masks)), sample(*guide(core, config)))


def test_an_attention_function_of_another_pack_gets_the_bias(core: Any) -> None:
    masks = []

    def theirs(func, *args, **kwargs):
        masks.append(args[4] if len(args) > 4 else kwargs.get("mask"))
        return func(*args, **kwargs)

    clone = host.load("tiny")[0].clone()
    clone.model_options["transformer_options"]["optimized_attention_override"] = theirs
    torch.testing.assert_close(sample(*guide(core, model=clone)), sample(*guide(core)))
    assert any(mask is not None for mask in masks)
    assert any(mask is None for mask in masks)


def test_replaced_cross_attention_is_said(core: Any, caplog: pytest.LogCaptureFixture) -> None:
    from comfy.ldm.modules.attention import optimized_attention

    def theirs(q, k, v, extra_options):
        return optimized_attention(q, k, v, extra_options["n_heads"])

    clone = host.load("tiny")[0].clone()
    for block in (("middle", 0), *(("output", number) for number in range(12))):
        clone.set_model_attn2_replace(theirs, *block)
    guided = sample(*guide(core, model=clone))
    assert torch.equal(guided, sample(clone, encode()))
    assert "another node replaces cross-attention" in caplog.text


def test_a_controlnet_takes_part(core: Any) -> None:
    import node_helpers

    model, positive = guide(core)
    plain = sample(model, positive)
    control = {"control": random_controlnet(), "control_apply_to_uncond": False}
    controlled = sample(model, node_helpers.conditioning_set_values(positive, control))
    assert controlled.isfinite().all()
    assert not torch.equal(controlled, plain)


def test_context_windows_over_the_batch_change_nothing(core: Any) -> None:
    import comfy.context_windows as windows

    model, positive = guide(core)
    noise = noise_like(4)
    windowed = model.clone()
    windowed.model_options["context_handler"] = windows.IndexListContextHandler(
        windows.get_matching_context_schedule("standard_static"),
        windows.get_matching_fuse_method("pyramid"),
        context_length=2,
        context_overlap=0,
        dim=0,
    )
    torch.testing.assert_close(sample(windowed, positive, noise), sample(model, positive, noise), atol=2e-4, rtol=1e-3)


def test_the_hybrid_takes_one_gradient_where_the_loss_stays_high(core: Any) -> None:
    records: list = []
    sample(*guide(core, core.hybrid, on_step=records.append))
    assert [record.step for record in records] == [0, 1, 2]
    assert [record.updates for record in records] == [(1,)] * 3


def test_the_hybrid_takes_no_gradient_below_the_threshold(core: Any) -> None:
    records: list = []
    calm = replace(core.hybrid, threshold=0.9)
    guided = sample(*guide(core, calm, on_step=records.append))
    # The first step's loss is not known before it is looked at; afterwards the sampler's own evaluation tells it.
    assert [len(record.losses) for record in records] == [1, 0, 0]
    assert [record.updates for record in records] == [(0,)] * 3
    assert torch.equal(guided, sample(*guide(core)))
