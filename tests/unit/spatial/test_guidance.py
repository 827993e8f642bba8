"""The location loss (Eq. 9), against values by hand, and the update of the latents."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from compinv_core.basics.errors import Remarks, UserError, remarks_to
from compinv_core.spatial.attention import BlockAttention
from compinv_core.spatial.guidance import guide_latents, layout_loss, location_loss
from compinv_core.spatial.settings import GuidanceConfig

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


@pytest.fixture
def attention() -> torch.Tensor:
    """(2, 2, 1, 4): shares outside the left half .25 and .5 for the first image, 0 and 1 for the second."""
    return torch.tensor(
        [[[[2.0, 1.0, 1.0, 0.0]], [[1.0, 0.0, 0.0, 1.0]]], [[[3.0, 0.0, 0.0, 0.0]], [[0.0, 0.0, 5.0, 0.0]]]]
    )


@pytest.fixture
def left_twice() -> torch.Tensor:
    return torch.tensor([[[1.0, 1.0, 0.0, 0.0]], [[1.0, 1.0, 0.0, 0.0]]])


def test_linear_loss_is_the_mean_share_outside(attention: torch.Tensor, left_twice: torch.Tensor) -> None:
    assert location_loss(attention, left_twice).tolist() == [0.375, 0.5]
    assert location_loss(attention, left_twice, "linear").tolist() == [0.375, 0.5]


def test_squared_loss_is_the_mean_of_squares(attention: torch.Tensor, left_twice: torch.Tensor) -> None:
    assert location_loss(attention, left_twice, "squared").tolist() == [(0.0625 + 0.25) / 2, 0.5]


def test_loss_does_not_depend_on_the_scale_of_attention(attention: torch.Tensor, left_twice: torch.Tensor) -> None:
    torch.testing.assert_close(location_loss(attention * 1e-4, left_twice), location_loss(attention, left_twice))


@pytest.mark.parametrize("form", ["linear", "squared"])
def test_extremes(form: str) -> None:
    maps = torch.tensor([[[[0.0, 1.0]]]])
    assert location_loss(maps, torch.tensor([[[0.0, 1.0]]]), form).item() == 0.0
    assert location_loss(maps, torch.tensor([[[1.0, 0.0]]]), form).item() == 1.0


def test_loss_of_no_phrase_is_zero() -> None:
    assert location_loss(torch.rand(3, 0, 4, 4), torch.zeros(0, 4, 4)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("form", ["linear", "squared"])
def test_gradient_in_float64(form: str) -> None:
    generator = torch.Generator().manual_seed(1)
    maps = torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=generator) + 0.1
    masks = (torch.rand(3, 4, 5, generator=generator) > 0.5).float()
    assert torch.autograd.gradcheck(lambda value: location_loss(value, masks, form), maps.requires_grad_(True))


def test_loss_refuses_what_does_not_fit(attention: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="fit"):
        location_loss(attention, torch.ones(3, 1, 4))
    with pytest.raises(ValueError, match="form"):
        location_loss(attention, torch.ones(2, 1, 4), "cubed")


def blocks_of(*shares: tuple[tuple[float, ...], tuple[int, int]]) -> list[BlockAttention]:
    """Blocks whose heads, at token 5, put the given shares of attention into the left half."""
    blocks = []
    for heads, (height, width) in shares:
        weights = torch.zeros(1, len(heads), height, width, 77)
        for head, share in enumerate(heads):
            weights[0, head, :, : width // 2, 5] = share
            weights[0, head, :, width // 2 :, 5] = 1 - share
        blocks.append(BlockAttention(weights.flatten(2, 3), height, width))
    return blocks


def test_layout_loss_averages_maps_within_a_resolution() -> None:
    blocks = blocks_of(((1.0, 0.5), (2, 4)), ((0.5, 0.0), (2, 4)))
    # The mean map has half of its attention on the left.
    assert layout_loss(blocks, [(5,)], [LEFT], GuidanceConfig(loss="squared")).item() == pytest.approx(0.25)


def test_layout_loss_weights_resolutions_by_their_blocks() -> None:
    blocks = blocks_of(((1.0,), (2, 4)), ((0.5,), (4, 4)), ((0.5,), (4, 4)))
    assert layout_loss(blocks, [(5,)], [LEFT], GuidanceConfig(loss="linear")).item() == pytest.approx(0.5 * 2 / 3)


def test_loss_per_head_averages_losses() -> None:
    blocks = blocks_of(((1.0, 0.5), (2, 4)), ((0.5, 0.0), (2, 4)))
    config = GuidanceConfig(loss="squared", loss_per_head=True)
    assert layout_loss(blocks, [(5,)], [LEFT], config).item() == pytest.approx((0 + 0.25 + 0.25 + 1) / 4)
    half = replace(config, heads="second half")
    assert layout_loss(blocks, [(5,)], [RIGHT], half).item() == pytest.approx((0.25 + 0) / 2)


def test_loss_per_token_averages_losses_of_a_phrase_first() -> None:
    (block,) = blocks_of(((1.0,), (2, 4)))
    # Of tokens 5, 6 and 7 all, none and half of the attention is on the left; token 7 has twice as much of it.
    cells = block.weights.view(1, 1, 2, 4, 77)
    cells[..., 2:, 6] = 1.0
    cells[..., 7] = 1.0
    spans, boxes = [(5, 6), (7,)], [LEFT, LEFT]
    by_token = layout_loss([block], spans, boxes, GuidanceConfig(loss="squared", loss_per_token=True))
    assert by_token.item() == pytest.approx(((0 + 1) / 2 + 0.25) / 2)
    assert layout_loss([block], spans, boxes, GuidanceConfig(loss="squared")).item() == pytest.approx(0.25)
    one_each = layout_loss([block], [(5,), (7,)], boxes, GuidanceConfig(loss_per_token=True))
    assert torch.equal(one_each, layout_loss([block], [(5,), (7,)], boxes, GuidanceConfig()))


def test_loss_per_token_and_head_in_float64() -> None:
    generator = torch.Generator().manual_seed(3)
    config = GuidanceConfig(strength=1.0).with_preset("official_2024")
    weights = (torch.rand(2, 4, 8, 9, dtype=torch.float64, generator=generator) + 0.1).requires_grad_(True)
    spans, boxes = [(1, 2), (4,)], [(0.0, 0.0, 0.6, 1.0), RIGHT]
    # Heads 3 and 4 count; of the four columns the first box has 2.4, which is two.
    maps, losses = weights[:, 2:].unflatten(2, (2, 4)), []
    for token, columns in ((1, slice(0, 2)), (2, slice(0, 2)), (4, slice(2, 4))):
        inside = maps[..., columns, token].sum((2, 3)) / maps[..., token].sum((2, 3))
        losses.append((1 - inside).square().mean(1))
    expected = ((losses[0] + losses[1]) / 2 + losses[2]) / 2
    loss = layout_loss([BlockAttention(weights, 2, 4)], spans, boxes, config)
    torch.testing.assert_close(loss, expected)
    assert torch.autograd.gradcheck(
        lambda value: layout_loss([BlockAttention(value, 2, 4)], spans, boxes, config), (weights,)
    )


def test_a_box_truncated_to_nothing_has_the_greatest_loss_and_no_gradient() -> None:
    weights = torch.rand(1, 1, 8, 9).requires_grad_(True)
    config = GuidanceConfig(truncated_boxes=True)
    loss = layout_loss([BlockAttention(weights, 2, 4)], [(1,)], [(0.3, 0.0, 0.45, 1.0)], config)
    loss.sum().backward()
    assert loss.item() == 1.0 and weights.grad is not None and not weights.grad.any()


def quadratic(latents: torch.Tensor) -> torch.Tensor:
    """Loss x²/2 summed over the image: its gradient is x."""
    return latents.square().flatten(1).sum(1) / 2


def image(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def test_update_is_strength_times_sigma_squared_times_gradient() -> None:
    # x ← x − s·σ²·x with s·σ² = 0.5: 1 → 0.5 → 0.25.
    config = GuidanceConfig(strength=0.125, threshold=0.0, max_iterations=2)
    result = guide_latents(image(1.0), torch.tensor([2.0]), quadratic, config)
    assert result.latents.flatten().tolist() == [0.25]
    assert result.losses == ((0.5,), (0.125,))
    assert result.updates == (2,)


def test_every_image_stops_on_its_own() -> None:
    config = GuidanceConfig(strength=0.5, threshold=0.1, max_iterations=5)
    values = (0.4, 1.0, 4.0)
    together = guide_latents(image(*values), torch.ones(3), quadratic, config)
    alone = [guide_latents(image(value), torch.ones(1), quadratic, config) for value in values]
    assert together.updates == tuple(result.updates[0] for result in alone) == (0, 2, 4)
    assert together.latents.flatten().tolist() == [result.latents.item() for result in alone]


def test_an_image_below_the_threshold_is_the_same_tensor() -> None:
    latents = image(0.4)
    result = guide_latents(latents, torch.ones(1), quadratic, GuidanceConfig())
    assert result.latents is latents
    assert result.losses == ((pytest.approx(0.08),),)


def test_the_latents_given_are_not_changed() -> None:
    latents = image(3.0)
    guide_latents(latents, torch.ones(1), quadratic, GuidanceConfig(strength=0.5))
    assert latents.item() == 3.0


def test_inference_tensors_are_welcome() -> None:
    with torch.inference_mode():
        latents, sigma = image(1.0), torch.tensor([1.0])
        result = guide_latents(latents, sigma, quadratic, GuidanceConfig(strength=0.5, max_iterations=1))
        assert result.latents.item() == 0.5


def test_stale_loss_ends_guidance_for_good() -> None:
    config = GuidanceConfig(strength=0.5, threshold=0.2, max_iterations=5, stale_loss=True)
    first = guide_latents(image(1.0), torch.ones(1), quadratic, config)
    # The loss of the latent before the update decides, so there is one update more: .5, then .125 ends it.
    assert first.losses == ((0.5,), (0.125,))
    assert first.updates == (2,)
    later = image(10.0)
    second = guide_latents(later, torch.ones(1), quadratic, config, first.last_loss)
    assert second.latents is later
    assert second.losses == ()
    fresh = guide_latents(later, torch.ones(1), quadratic, replace(config, stale_loss=False), first.last_loss)
    assert fresh.updates == (4,)


def test_a_gradient_that_is_not_finite_leaves_the_image_alone() -> None:
    def steep_at_zero(latents: torch.Tensor) -> torch.Tensor:
        return 1 + latents.flatten().sqrt()

    result = guide_latents(image(0.0, 1.0), torch.ones(2), steep_at_zero, GuidanceConfig(strength=0.1))
    assert result.latents.flatten()[0].item() == 0.0
    assert 0 < result.latents.flatten()[1].item() < 1
    assert result.updates == (0, 5)


def test_a_loss_that_is_not_finite_is_said() -> None:
    said = Remarks()
    with remarks_to(said):
        result = guide_latents(
            image(-1.0, 1.0), torch.ones(2), lambda x: x.flatten().sqrt(), GuidanceConfig(strength=0.1)
        )
    assert result.latents.flatten()[0].item() == -1.0 and result.updates[0] == 0 and result.updates[1] > 0
    assert [remark.sentence for remark in said.said] == [
        "Layout guidance: loss or gradient of an image is not finite; that image is left as it is."
    ]


def test_on_iteration_may_stop() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guide_latents(image(1.0), torch.ones(1), quadratic, GuidanceConfig(), on_iteration=stop)


@pytest.mark.parametrize(("steps", "guided"), [(50, 10), (20, 4), (30, 6), (2, 1), (1, 1)])
def test_a_share_of_the_steps_is_guided_at_least_one(steps: int, guided: int) -> None:
    share = GuidanceConfig(guided_share=0.2)
    assert share.steps_of(steps) == guided and share.is_active
    assert GuidanceConfig(guided_steps=7).steps_of(steps) == 7
    assert replace(share, guided_steps=0).is_active and not GuidanceConfig(guided_steps=0).is_active
    assert share.with_preset("official_2024").steps_of(50) == 10


def test_preset_of_the_released_code() -> None:
    assert GuidanceConfig().with_preset("paper") == GuidanceConfig()
    official = GuidanceConfig(strength=12).with_preset("official_2024")
    assert official == GuidanceConfig(
        strength=12,
        span="placeholder",
        heads="second half",
        loss_per_head=True,
        loss_per_token=True,
        truncated_boxes=True,
        stale_loss=True,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"strength": -1},
        {"strength": float("nan")},
        {"threshold": 1.5},
        {"max_iterations": -1},
        {"guided_steps": -2},
        {"loss": "cubed"},
        {"blocks": "down"},
        {"span": "word"},
        {"heads": "none"},
        {"end_percent": 2.0},
    ],
)
def test_config_refuses(wrong: dict) -> None:
    (name,) = wrong
    with pytest.raises(UserError, match=f"^{name} is .*; give "):
        GuidanceConfig(**wrong)


def test_unknown_preset() -> None:
    with pytest.raises(UserError, match="preset"):
        GuidanceConfig().with_preset("2025")
