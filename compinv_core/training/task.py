"""What the training loop needs of a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

TOTAL = "loss"


@dataclass(frozen=True, eq=False)
class StepLoss:
    """The losses of one step.

    Attributes
    ----------
    total : Tensor ()
        What is minimised.
    parts : mapping of str to Tensor ()
        Its named terms, for the records only.
    """

    total: torch.Tensor
    parts: Mapping[str, torch.Tensor]

    def named(self) -> dict[str, torch.Tensor]:
        """Return the total, as ``loss``, and the parts for the records, without their graph."""
        return {TOTAL: self.total.detach(), **{name: part.detach() for name, part in self.parts.items()}}


class TrainingTask(Protocol):
    """What the loop needs of a method."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the groups for the optimiser, each with its parameters and learning rate."""
        ...

    def loss(self, batch: int, generator: torch.Generator) -> StepLoss:
        """Compute the loss of batch number `batch` (0-based); all randomness comes from `generator` (CPU)."""
        ...

    def after_step(self, step: int) -> None:
        """Follow up on the update of step `step` (0-based), for example by coding the anchors anew."""
        ...

    def active_anchors(self) -> dict[str, float]:
        """Return the active anchors with their weights, for the reports; empty without any."""
        ...

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Return everything that changes during training, apart from the optimiser's own state."""
        ...

    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state_tensors` returned."""
        ...
