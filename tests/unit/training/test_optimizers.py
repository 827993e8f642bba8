"""The states of optimisers on disk: also those that nest, as bitsandbytes' do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compinv_core.training.optimizers import load_optimizer_state, make_optimizer, optimizer_state
from compinv_core.training.run_folder.state import RunState, RunStore


class NestedMomentum(torch.optim.Optimizer):
    """Momentum whose state has levels, numbers, and a parameter that has none yet."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state |= {"step": 0, "clip": None, "inner": {"moments": {"first": torch.zeros_like(parameter)}}}
                state["step"] += 1
                first = state["inner"]["moments"]["first"]
                first.mul_(0.9).add_(parameter.grad)
                parameter.sub_(group["lr"] / state["step"] * first)


MAKERS: dict[str, Callable[[list[dict[str, Any]]], torch.optim.Optimizer]] = {
    "nested": NestedMomentum,
    "adamw": lambda groups: make_optimizer("adamw", groups),
    "adafactor": lambda groups: make_optimizer("adafactor", groups),
}


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in ((4, 3), (5,), (2,))]


def steps(optimizer: torch.optim.Optimizer, trained: list[torch.nn.Parameter], count: int) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        torch.stack([parameter.square().sum() for parameter in trained[:2]]).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", list(MAKERS))
def test_a_state_comes_back_from_disk_as_it_was(tmp_path: Path, kind: str) -> None:
    straight, stopped = parameters(), parameters()
    steps(MAKERS[kind]([{"params": straight, "lr": 0.05}]), straight, 6)
    first = MAKERS[kind]([{"params": stopped, "lr": 0.05}])
    steps(first, stopped, 3)
    tensors, numbers = optimizer_state(first)
    RunStore(tmp_path, {}, {}).save(RunState(3, tensors, {"numbers": numbers}), 6)

    saved = RunStore(tmp_path, {}, {}).open(6, resume=True)
    assert saved is not None
    second = MAKERS[kind]([{"params": stopped, "lr": 0.05}])
    load_optimizer_state(second, {**saved.tensors, **saved.facts["numbers"]})
    before, after = first.state[stopped[0]], second.state[stopped[0]]
    assert {name: type(value) for name, value in before.items()} == {name: type(value) for name, value in after.items()}
    steps(second, stopped, 3)
    assert all(torch.equal(a, b) for a, b in zip(straight, stopped, strict=True))
