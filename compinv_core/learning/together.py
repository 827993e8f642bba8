"""One evaluation of the diffusion model for the batches of several trainings, while the model is not trained itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ..training.task import StepLoss
from ..training.together import Turn

Denoise = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class Request:
    """What a batch asks of the diffusion model.

    Attributes
    ----------
    latents : Tensor (B, C, h, w), float32
    noise : Tensor (B, C, h, w), float32, CPU
    timesteps : Tensor (B,), int64, CPU
    context : Tensor (B, 77, D), float32
        Differentiable in what is learned.
    compose : callable
        (prediction (B, C, h, w), target (B, C, h, w)) -> the loss of the batch.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    context: torch.Tensor
    compose: Callable[[torch.Tensor, torch.Tensor], StepLoss]


class Asks(Protocol):
    """A training that says what it needs of the diffusion model before it is evaluated."""

    def request(self, batch: int, generator: torch.Generator) -> Request:
        """Draw batch number `batch` (0-based); all randomness comes from `generator` (CPU)."""
        ...


class Together:
    """Several trainings whose batches go through the diffusion model side by side.

    Each draws from its own generator and composes its own loss, so that a word is what it would be alone.

    Parameters
    ----------
    members : sequence of Inversion
        With latents of one size, and none of them training the model's weights.
    denoise : callable
        See `compinv_core.learning.inversion.Inversion`.
    most_pictures : int, optional
        Most pictures of one evaluation; a batch that has more by itself is evaluated alone. None evaluates all at once.
    """

    def __init__(self, members: Sequence[Asks], denoise: Denoise, most_pictures: int | None = None) -> None:
        self.members, self._denoise, self._most = tuple(members), denoise, most_pictures

    def losses(self, turns: Sequence[Turn]) -> Iterator[list[StepLoss]]:
        """Yield the losses of the members whose turn it is, in order, those of one evaluation in a list.

        The next evaluation begins when the next list is asked for, so that the activations of one can be gone by then.
        """
        waiting: list[Request] = []
        for turn in turns:
            request = self.members[turn.member].request(turn.batch, turn.generator)
            pictures = len(request.latents) + sum(len(other.latents) for other in waiting)
            if waiting and self._most is not None and pictures > self._most:
                yield evaluated(waiting, self._denoise)
                waiting = []
            waiting.append(request)
        if waiting:
            yield evaluated(waiting, self._denoise)


def evaluated(requests: Sequence[Request], denoise: Denoise) -> list[StepLoss]:
    """Evaluate the diffusion model once and return the loss of each request."""
    latents = joined([request.latents for request in requests])
    noise = joined([request.noise for request in requests]).to(latents.device)
    timesteps = joined([request.timesteps for request in requests]).to(latents.device)
    answers = denoise(latents, noise, timesteps, joined([request.context for request in requests]))
    sizes = [len(request.latents) for request in requests]
    predictions, targets = (answer.split(sizes) for answer in answers)
    return [request.compose(*pair) for request, *pair in zip(requests, predictions, targets, strict=True)]


def joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Join tensors along their first dimension; a single one is itself."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
