"""Gradients through modules that were made in inference mode."""

from __future__ import annotations

import pytest
import torch

from support import host


@pytest.fixture(scope="module")
def inference():
    host.start()
    import compinv_core.host.inference as module

    return module


def test_rewrap_shares_the_storage(inference) -> None:
    with torch.inference_mode():
        tensor = torch.arange(12.0).view(3, 4)[1:, ::2]
    normal = inference.rewrap(tensor)
    assert not normal.is_inference()
    assert torch.equal(normal, tensor)
    assert normal.data_ptr() == tensor.data_ptr()
    assert normal.stride() == tensor.stride()


def test_rewrap_needs_normal_mode(inference) -> None:
    with torch.inference_mode(), pytest.raises(RuntimeError, match="outside inference mode"):
        inference.rewrap(torch.zeros(1))


def test_guard_gives_the_gradient_of_a_normal_module(inference) -> None:
    with torch.inference_mode():
        frozen = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.GELU())
        x = torch.randn(3, 4)
        with torch.inference_mode(False), torch.enable_grad(), inference.InferenceTensorGuard():
            leaf = x.clone().requires_grad_(True)
            (guarded,) = torch.autograd.grad(torch.cat([frozen(leaf), x]).square().sum(), leaf)
        assert all(parameter.is_inference() for parameter in frozen.parameters())
    normal = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.GELU())
    normal.load_state_dict({key: value.clone() for key, value in frozen.state_dict().items()})
    leaf = x.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(torch.cat([normal(leaf), x.clone()]).square().sum(), leaf)
    assert torch.equal(guarded, expected)


def test_parameters_are_normalised_in_place(inference) -> None:
    with torch.inference_mode():
        module = torch.nn.BatchNorm1d(3)
    before = {key: value.data_ptr() for key, value in module.state_dict().items()}
    assert inference.normalise_parameters(module) == 5
    assert inference.normalise_parameters(module) == 0
    assert {key: value.data_ptr() for key, value in module.state_dict().items()} == before
    assert not any(parameter.requires_grad for parameter in module.parameters())
