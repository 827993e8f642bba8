"""The gradient of a learned word through the real networks, against central differences in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from support import host
from support.models.double import InDouble, central_difference
from support.models.families import FAMILIES, FamilyCase

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = ["sdxl", "sdxl_v", "sd2", "sd2_v"]


def in_double(module: Any) -> None:
    """Bring a network to float64, and what its layers remember of their type."""
    for part in module.double().modules():
        if isinstance(getattr(part, "dtype", None), torch.dtype):
            part.dtype = torch.float64


@pytest.mark.parametrize("kind", KINDS)
def test_the_words_gradient_is_the_slope_of_the_loss_in_every_encoder(kind: str) -> None:
    """Through context and pooled output; the relative error stays below 1e-6."""
    from compinv_core.host.learning.session import training_session
    from compinv_core.host.text.encoder import text_encoder_gradients
    from compinv_core.host.text.sentences import TemplateEncoder

    case: FamilyCase = FAMILIES[kind.removesuffix("_v")]
    model, clip, _ = host.load_anew(kind)
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=generator, dtype=torch.float64)
    start = case.word(2).double()
    with training_session(model, clip, (1, 4, 8, 8)) as (session, open_clip), text_encoder_gradients(open_clip):
        encoder = TemplateEncoder(open_clip, ["a photo of {} cat"], 2, "cat")
        in_double(session.model.model.diffusion_model)
        in_double(open_clip.cond_stage_model)

        def loss(vectors: torch.Tensor) -> torch.Tensor:
            with InDouble():
                prediction, target = session.denoise(latents, noise, torch.tensor([400]), encoder(0, vectors))
                assert prediction.dtype == torch.float64
                return (prediction - target).square().mean()

        vectors = start.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(vectors), vectors)
        assert gradient.dtype == torch.float64
        for key in case.widths:
            direction = torch.randn(start.shape, generator=generator, dtype=torch.float64)
            direction *= torch.cat([torch.full((width,), float(name == key)) for name, width in case.widths.items()])
            numeric = central_difference(loss, start, 0.0137 * direction)
            analytic = float((gradient * 0.0137 * direction).sum())
            assert analytic != 0 and abs(numeric - analytic) < 1e-6 * abs(analytic), (key, numeric, analytic)
