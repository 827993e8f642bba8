"""The memory estimate: told before the first step, and above what the full-size network saves for backward."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from support import checkpoints, host
from support.models.training_case import Loaded, short_tuning, tune

LATENTS = (2, 4, 16, 16)


class EfficientAttention(torch.autograd.Function):
    """Saves what the memory-efficient kernels save: the inputs and the output."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out)
        return out


def saved_bytes(checkpointing: bool) -> int:
    """Count what a pass of full-size Stable Diffusion 1 keeps for backward, on tensors without memory."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    from compinv_core.host.learning.checkpointing import gradient_checkpointing

    shape: dict[str, Any] = {**checkpoints.SHARED_UNET, **checkpoints.UNETS["full"]}
    network = UNetModel(**shape, dtype=torch.float32, device="meta", operations=comfy.ops.disable_weight_init)
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    def attention(func: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return EfficientAttention.apply(q, k, v)

    latents, times, context = (torch.empty(shape, device="meta") for shape in (LATENTS, (2,), (2, 77, 768)))
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.enable_grad(), hooks, gradient_checkpointing(network, checkpointing):
        options = {"optimized_attention_override": attention}
        network(latents, times, context=context.requires_grad_(True), transformer_options=options)
    return sum(storage.nbytes() for storage in kept.values())


def test_activations_are_not_underestimated() -> None:
    host.start()
    from compinv_core.training.memory import activation_bytes

    whole, few = saved_bytes(checkpointing=False), saved_bytes(checkpointing=True)
    assert 1.2 * whole < activation_bytes(LATENTS, 4, checkpointing=False) < 2 * whole
    # Beside these, one block's at a time.
    assert few < activation_bytes(LATENTS, 4, checkpointing=True) < whole


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
