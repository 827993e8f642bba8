"""The bias of injection, against numbers made by hand."""

from __future__ import annotations

import math

import pytest
import torch

from compinv_core.spatial.injection import logit_ranges, noise_weight, region_signs
from compinv_core.spatial.settings import GuidanceConfig


def test_the_weight_falls_with_the_noise() -> None:
    assert noise_weight(14.6) == 1.0
    assert noise_weight(4518.0) == 1.0
    assert noise_weight(0.0) == 0.0
    assert noise_weight(1.0) == pytest.approx(math.log(2) / math.log(15.6))


def test_the_range_is_that_of_each_head() -> None:
    # One head of width 4, so q·k / 2: the queries see (2, 0, -1) and (4, 0, -2); the second image has zeros.
    key = torch.tensor([[4.0, 0, 0, 0], [0, 4, 0, 0], [-2, 0, 0, 0]]).expand(2, 3, 4)
    query = torch.zeros(2, 2, 4)
    query[0, :, 0] = torch.tensor([1.0, 2.0])
    assert logit_ranges(query, key, 1).flatten().tolist() == [4.5, 0.0]
    # Two heads of width 2, so q·k / √2: only the first has anything to see.
    assert torch.allclose(logit_ranges(query, key, 2)[0].flatten(), torch.tensor([9.0 / 2**0.5, 0.0]))


def test_products_beyond_half_precision_have_a_range() -> None:
    # q·k is 90,000 and above the largest number of float16, q·k / √64 is 11,250.
    query = torch.full((1, 1, 64), 37.5, dtype=torch.float16)
    key = torch.stack([query[0], torch.zeros_like(query[0])], dim=1)
    assert logit_ranges(query, key, 1).flatten().tolist() == [11248.0]


def test_a_few_queries_stand_for_many() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(1, 4096, 32, generator=generator), torch.randn(1, 77, 32, generator=generator)
    logits = query.unflatten(-1, (4, 8)).transpose(1, 2) @ key.unflatten(-1, (4, 8)).transpose(1, 2).mT / 8**0.5
    exact = (logits.amax(-1) - logits.amin(-1)).mean(-1)
    assert torch.allclose(logit_ranges(query, key, 4).flatten(), exact.flatten(), rtol=0.15)


def test_signs_are_of_the_phrases_own_tokens() -> None:
    masks = torch.tensor([[[1.0, 0.0]], [[0.0, 0.75]]])
    signs = region_signs([(1, 2), (4,)], masks, 6)
    assert signs.tolist() == [[0, 1, 1, 0, -1, 0], [0, -1, -1, 0, 0.5, 0]]


@pytest.mark.parametrize(
    ("settings", "gradients", "injects", "active"),
    [
        ({}, True, False, True),
        ({"method": "injection"}, False, True, True),
        ({"method": "injection", "injection_strength": 0}, False, False, False),
        ({"method": "injection", "strength": 0}, False, True, False),
        ({"method": "injection", "max_iterations": 0}, False, True, True),
        ({"method": "hybrid"}, True, True, True),
        ({"method": "hybrid", "injection_strength": 0}, True, False, True),
        ({"method": "hybrid", "guided_steps": 0}, True, True, False),
    ],
)
def test_what_each_method_does(settings: dict, gradients: bool, injects: bool, active: bool) -> None:
    config = GuidanceConfig(**settings)
    assert (config.takes_gradients, config.injects, config.is_active) == (gradients, injects, active)
