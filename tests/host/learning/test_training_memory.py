"""The memory estimate: told before the first step, and above what full-size networks save for backward."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from support.models.full_size import SHAPES, Kept, efficient_attention, full_network
from support.models.training_case import Loaded, short_tuning, tune

CELLS = (16, 16)
LATENTS = (2, 4, *CELLS)


def saved_bytes(kind: str, checkpointing: bool, rank: int = 0) -> tuple[int, int]:
    """Count what a pass at full size keeps for backward, and what the largest block has inside of it."""
    network = full_network(kind)
    from comfy.ldm.modules.attention import SpatialTransformer

    from compinv_core.host.checkpointing import gradient_checkpointing
    from compinv_core.host.learning.trained_weights import trained_weights
    from compinv_core.training.low_rank import LowRank

    network.requires_grad_(not rank)
    kept, inside, before = Kept(network), [0], [0]
    for block in network.modules():
        if isinstance(block, SpatialTransformer):
            block.register_forward_pre_hook(lambda *_: before.append(kept.total))
            block.register_forward_hook(lambda *_: inside.append(kept.total - before.pop()))
    width, pooled = network.label_emb[0][0].in_features if kind == "sdxl" else 0, {}
    if width:
        pooled["y"] = torch.empty((2, width), device="meta")
    context_shape = (2, 77, SHAPES[kind].get("context_dim", 768))
    latents, times, context = (torch.empty(shape, device="meta") for shape in (LATENTS, (2,), context_shape))
    low_rank = LowRank(rank, 0) if rank else None
    with (
        torch.enable_grad(),
        trained_weights(network, lambda name: rank > 0, torch.float32, low_rank) as trained,
        kept.hooks,
        gradient_checkpointing(network, checkpointing),
    ):
        kept.leave_out(trained.parameters.values())
        options = {"optimized_attention_override": efficient_attention}
        network(latents, times, context=context.requires_grad_(True), transformer_options=options, **pooled)
    return kept.total, max(inside)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_activations_are_not_underestimated(kind: str) -> None:
    whole, block = saved_bytes(kind, checkpointing=False)
    few, _ = saved_bytes(kind, checkpointing=True)
    factors, with_factors = saved_bytes(kind, checkpointing=False, rank=16)
    from compinv_core.training.memory import SD1_ACTIVATIONS, SDXL_ACTIVATIONS, activation_bytes

    per_cell = {"sd1": SD1_ACTIVATIONS, "sdxl": SDXL_ACTIVATIONS}[kind]
    estimate = activation_bytes(LATENTS, 4, checkpointing=False, per_cell=per_cell)
    assert 1.2 * whole < estimate < 2 * whole and 1.2 * factors < estimate
    # The inputs of the blocks, and one block's inside at a time.
    checkpointed = activation_bytes(LATENTS, 4, checkpointing=True, per_cell=per_cell)
    assert 1.2 * (few + max(block, with_factors)) < checkpointed < whole


def test_low_rank_fits_a_card_by_the_estimate() -> None:
    network = full_network("sdxl").to(torch.float16)
    import comfy.sdxl_clip

    from compinv_core.host.family import SD1
    from compinv_core.host.learning.memory import needed_memory
    from compinv_core.learning.tuning_settings import CustomDiffusionConfig, DreamBoothConfig
    from compinv_core.training.memory import SDXL_ACTIVATIONS

    text = comfy.sdxl_clip.SDXLClipModel(device="meta", dtype=torch.float16)
    models = 2 * sum(parameter.numel() for module in (network, text) for parameter in module.parameters())
    assert models == pytest.approx(6.77e9, rel=0.01)

    def needed(config: Any) -> Any:
        # A picture of 1024 x 1024 and one of its class.
        selects = SD1.trained_weights[config.method.trains]
        return needed_memory(network, text, config, selects, (2, 4, 128, 128), torch.float16, SDXL_ACTIVATIONS)

    rank16 = needed(DreamBoothConfig(train_rank=16, gradient_checkpointing=True))
    # 49 million numbers in factors: 4 bytes of each, 4 of casts and their gradients, 4 of gradients, 8 of AdamW; and
    # the text encoders in float32.
    assert rank16.gradients == pytest.approx(4 * 49.2e6, rel=0.01)
    assert rank16.weights == pytest.approx(8 * 49.2e6 + 3.27e9, rel=0.01)
    assert rank16.optimizer == pytest.approx(8 * 49.2e6, rel=0.01)
    assert models + rank16.total < 15e9
    assert models + needed(DreamBoothConfig(train_rank=32, gradient_checkpointing=True)).total < 16e9
    assert models + needed(DreamBoothConfig(gradient_checkpointing=True)).total > 60e9
    keys = needed(CustomDiffusionConfig(batch_size=1, train_rank=16, gradient_checkpointing=True))
    assert keys.gradients == pytest.approx(4 * 7.2e6, rel=0.01) and models + keys.total < 14e9


@pytest.mark.parametrize("method", ["custom_diffusion", "dreambooth"])
def test_the_estimate_is_told_before_the_first_step(
    loaded: Loaded, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    told: list[str] = []
    with caplog.at_level(logging.INFO, "compinv"):
        tune(
            loaded,
            short_tuning(method, steps=1, prior_weight=0.0),
            on_step=lambda step, losses: told.append(caplog.text),
        )
    assert "optimiser" in told[0] and "needs about" in told[0] and "GB are free on cpu" in told[0]
