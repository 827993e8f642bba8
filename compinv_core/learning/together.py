"""One evaluation of the diffusion model for the batches of several trainings, while the model is not trained itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ..training.task import StepLoss
from ..training.together import Turn
from .condition import Condition, joined_conditions

Denoise = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Condition], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class Asked:
    """Pictures of one size that the diffusion model is to see.

    Attributes
    ----------
    latents : Tensor (B, C, h, w), float32
    noise : Tensor (B, C, h, w), float32, CPU
    timesteps : Tensor (B,), int64, CPU
    condition : Condition
        Of B pictures, differentiable in what is learned.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    condition: Condition


@dataclass(frozen=True, eq=False)
class Request:
    """What a batch asks of the diffusion model.

    Attributes
    ----------
    asked : sequence of Asked
        One for each size of picture in the batch.
    compose : callable
        (for each of them prediction and target, (B, C, h, w) both) -> the loss of the batch.
    """

    asked: Sequence[Asked]
    compose: Callable[[Sequence[tuple[torch.Tensor, torch.Tensor]]], StepLoss]

    @property
    def pictures(self) -> int:
        """How many pictures the batch has."""
        return sum(len(each.latents) for each in self.asked)


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
        None of them training the model's weights.
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
            pictures = request.pictures + sum(other.pictures for other in waiting)
            if waiting and self._most is not None and pictures > self._most:
                yield evaluated(waiting, self._denoise)
                waiting = []
            waiting.append(request)
        if waiting:
            yield evaluated(waiting, self._denoise)


def evaluated(requests: Sequence[Request], denoise: Denoise) -> list[StepLoss]:
    """Evaluate the diffusion model once for each size of picture, and return the loss of each request."""
    of_size: dict[torch.Size, list[tuple[int, int]]] = {}
    for number, request in enumerate(requests):
        for index, asked in enumerate(request.asked):
            of_size.setdefault(asked.latents.shape[1:], []).append((number, index))
    answers: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
    for places in of_size.values():
        wanted = [requests[number].asked[index] for number, index in places]
        latents = joined([asked.latents for asked in wanted])
        noise = joined([asked.noise for asked in wanted]).to(latents.device)
        timesteps = joined([asked.timesteps for asked in wanted]).to(latents.device)
        condition = joined_conditions([asked.condition for asked in wanted])
        sizes = [len(asked.latents) for asked in wanted]
        pairs = zip(*(each.split(sizes) for each in denoise(latents, noise, timesteps, condition)), strict=True)
        answers |= dict(zip(places, pairs, strict=True))  # type: ignore[arg-type]
    return [
        request.compose([answers[number, index] for index in range(len(request.asked))])
        for number, request in enumerate(requests)
    ]


def joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Join tensors along their first dimension; a single one is itself."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
