"""Low rank in training: shapes, start, the path beside a layer by hand and against the dense weight, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import conv2d

from compinv_core.training.low_rank import factor_shapes, initial_factors, low_rank_output


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator(), dtype=torch.float64)


def test_factors_have_the_shapes_of_lora_files_and_no_more_rank_than_the_matrix() -> None:
    assert factor_shapes((5, 7), 2) == ((2, 7), (5, 2))
    assert factor_shapes((5, 7), 100) == ((5, 7), (5, 5))
    assert factor_shapes((6, 4, 3, 3), 2) == ((2, 4, 3, 3), (6, 2, 1, 1))
    assert factor_shapes((64, 4, 3, 3), 50) == ((36, 4, 3, 3), (64, 36, 1, 1))


def test_factors_start_even_and_change_nothing() -> None:
    before = torch.get_rng_state()
    down, up = initial_factors((320, 40, 3, 3), 16, generator())
    assert torch.equal(torch.get_rng_state(), before) and down.dtype == up.dtype == torch.float32
    bound = 1 / math.sqrt(360)
    assert 0.99 * bound < float(down.max()) <= bound and -bound <= float(down.min()) < -0.99 * bound
    assert float(down.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02) and not up.any()
    assert torch.equal(down, initial_factors((320, 40, 3, 3), 16, generator())[0])


def test_a_matrix_by_hand() -> None:
    layer = torch.nn.Linear(2, 3)
    down, up = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [0.0], [-2.0]])
    # down x = 3 + 2 · 4 = 11 for x = (3, 4).
    added = low_rank_output(layer, torch.tensor([[3.0, 4.0]]), down, up)
    assert torch.equal(added, torch.tensor([[11.0, 0.0, -22.0]]))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (3, 1, 1), (3, 2, 1)])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_a_convolution_gives_what_the_dense_weight_gives(kernel: int, stride: int, padding: int, mode: str) -> None:
    layer = torch.nn.Conv2d(4, 6, kernel, stride, padding, padding_mode=mode).double()
    (down_shape, up_shape), inputs = factor_shapes(layer.weight.shape, 3), drawn(2, 4, 8, 8)
    down, up = drawn(*down_shape), drawn(*up_shape)
    dense = (up.flatten(1) @ down.flatten(1)).reshape(layer.weight.shape)
    wanted = layer._conv_forward(inputs, layer.weight + dense, layer.bias)
    assert torch.allclose(layer(inputs) + low_rank_output(layer, inputs, down, up), wanted, atol=1e-12)
    if mode == "zeros":
        assert torch.allclose(low_rank_output(layer, inputs, down, up), conv2d(inputs, dense, None, stride, padding))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(torch.nn.Linear(4, 5), (2, 3, 4)), (torch.nn.Conv2d(4, 5, 3, stride=2, padding=1), (2, 4, 6, 6))],
    ids=["linear", "convolution"],
)
def test_gradients_reach_the_factors_and_the_inputs(layer: torch.nn.Linear | torch.nn.Conv2d, shape: tuple) -> None:
    down, up = (drawn(*each).requires_grad_(True) for each in factor_shapes(layer.weight.shape, 2))
    inputs = drawn(*shape).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x, d, u: low_rank_output(layer, x, d, u), (inputs, down, up))


def test_factors_are_cast_to_what_is_computed_with() -> None:
    layer = torch.nn.Linear(4, 5)
    down, up = initial_factors((5, 4), 2, generator())
    up = torch.nn.Parameter(up)
    added = low_rank_output(layer, torch.ones(1, 4, dtype=torch.bfloat16), down, up)
    assert added.dtype == torch.bfloat16
    added.sum().backward()
    assert up.grad is not None and up.grad.dtype == torch.float32 and up.grad.abs().max() > 0
