"""What the training loop is given: how long to train, and a method's losses and state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..semantic.hold import Distance

TOTAL = "loss"


@dataclass(frozen=True)
class LoopSettings:
    """How long to train and how often to save.

    Attributes
    ----------
    seed : int
        Of the loop's own generator.
    save_every : int
        Steps between saves; 0 saves only at the end and on interruption.
    scale_loss : bool
        Scale the loss before backward, for networks that compute in float16, whose small gradients would vanish.
    accumulation : int
        Batches per step, whose gradients are averaged.
    optimizer : str
        One of `compinv_core.training.optimizers.OPTIMIZERS`.
    weight_decay : float
        Of the optimiser.
    """

    steps: int
    seed: int = 0
    save_every: int = 100
    resume: bool = True
    scale_loss: bool = False
    accumulation: int = 1
    optimizer: str = "adamw"
    weight_decay: float = 0.0


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

    def distance(self) -> Distance | None:
        """Return how far what is learned has moved, for the reports; None where that has no meaning."""
        ...

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Return everything that changes during training, apart from the optimiser's own state."""
        ...

    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state_tensors` returned."""
        ...
