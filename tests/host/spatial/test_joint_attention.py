"""How a gradient passes diffusion transformers, and what shows their attention.

No such model is supported yet; these are the facts of the host that
docs/decisions/ahead/language-encoders.md builds on.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from support import host
from support.models import joint_transformers as joint


@pytest.fixture(params=joint.NAMES)
def name(request: pytest.FixtureRequest) -> str:
    host.start()
    return request.param


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((1, 4, 8, 8), (1, joint.TEXT_TOKENS, joint.CONTEXT_WIDTH))
    latents, context = (torch.randn(shape, generator=generator).requires_grad_(True) for shape in shapes)
    return latents, context


def test_a_gradient_needs_the_host_to_know_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management

    from compinv_core.host.text.encoder import inputs_copied

    network, wanted = joint.small_transformer(name), inputs()
    with pytest.raises(RuntimeError, match="no autograd formula"):
        torch.autograd.grad(joint.evaluate(name, network, *wanted, {}).square().sum(), wanted)
    monkeypatch.setattr(comfy.model_management, "in_training", True)
    # Only Flux adds in place to what its norms have saved; to the others the copies make no difference.
    with inputs_copied(joint.norms(network)):
        found = torch.autograd.grad(joint.evaluate(name, network, *wanted, {}).square().sum(), wanted)
    assert all(gradient.isfinite().all() and gradient.any() for gradient in found)


def test_the_override_sees_every_joint_attention(name: str) -> None:
    tokens: list[int] = []

    def override(function: Any, q: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        tokens.append(q.shape[2])
        return function(q, *args, **kwargs)

    latents, context = inputs()
    with torch.no_grad():
        joint.evaluate(
            name, joint.small_transformer(name), latents, context, {"optimized_attention_override": override}
        )
    # Patches of 2 × 2 cells; Flux has two double and two single blocks, the others two blocks.
    whole = joint.TEXT_TOKENS + latents.shape[-1] * latents.shape[-2] // 4
    assert tokens.count(whole) == (4 if name == "Flux" else 2)
