"""A small task for the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from compinv_core.semantic.hold import Distance
from compinv_core.training.task import StepLoss


class Stop(BaseException):
    """Like the host's interruption, no ordinary exception."""


class NoisyRegression:
    """Pulls two parameters to random targets; `fail_at` stops it in the middle of a step."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.weight, self.bias = torch.nn.Parameter(torch.zeros(5)), torch.nn.Parameter(torch.ones(2))
        self.updates, self.calls, self.fail_at = torch.zeros(1), 0, fail_at

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.weight], "lr": 0.05}, {"params": [self.bias], "lr": 0.01}]

    def loss(self, batch: int, generator: torch.Generator) -> StepLoss:
        target = torch.randn(5, generator=generator)
        if self.calls == self.fail_at:
            raise Stop
        self.calls += 1
        total = (self.weight - target).square().mean() + self.bias.square().sum()
        return StepLoss(total, {"size": self.weight.detach().norm()})

    def after_step(self, step: int) -> None:
        self.updates += step

    def active_anchors(self) -> dict[str, float]:
        return {"cat": 1.0}

    def distance(self) -> Distance:
        return Distance(float(self.weight.detach().norm()), 2.0)

    def state_tensors(self) -> dict[str, torch.Tensor]:
        return {"weight": self.weight.detach(), "bias": self.bias.detach(), "updates": self.updates}

    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            self.weight.copy_(tensors["weight"])
            self.bias.copy_(tensors["bias"])
        self.updates = tensors["updates"].clone()

    def equals(self, other: NoisyRegression) -> bool:
        mine, theirs = self.state_tensors(), other.state_tensors()
        return all(torch.equal(mine[name], theirs[name]) for name in mine)
