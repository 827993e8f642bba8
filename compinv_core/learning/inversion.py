"""Inversion with semantic inversion: the method's loss (Eq. 10) as a task for the training loop.

``L = (1 - lambda) L_rec + w L_prior + lambda L_anc``, the prior not scaled by lambda: Adam cancels a factor that all
terms of a weight have in common, and lambda would change nothing in the diffusion model. One task serves all methods:
each trains token vectors, and some also weights of the diffusion model, with a prior loss on pictures of the class, so
that the class itself is not unlearned. The diffusion model and the text encoder are callables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..semantic.hold import Distance
from ..training.task import StepLoss
from .condition import Condition, joined_conditions
from .settings import InversionConfig
from .subject import Subject
from .together import Asked, Denoise, Request, evaluated, joined

_STEADY = 8


@dataclass(frozen=True, eq=False)
class _Piece:
    """Pictures of a batch that were drawn together; photos with the concept they are of, and their rows."""

    latents: torch.Tensor
    condition: Condition
    photos: tuple[Subject, torch.Tensor] | None = None


class Inversion:
    """The task of learning concepts from photos, alone or together.

    A batch holds the concepts evenly, in turn where it is smaller than their number. One sentence is drawn per concept
    and batch, so that the text encoder runs once for each.

    Parameters
    ----------
    subjects : sequence of Subject
        One or more; all with pictures of their class, or none.
    num_timesteps : int
        Length of the noise schedule; timesteps are drawn evenly from it.
    denoise : callable
        (latents (B, C, h, w), noise like it, timesteps (B,) int64, condition of B pictures) -> (prediction, target),
        both (B, C, h, w).
    weights : mapping of str to Parameter, optional
        Weights of the diffusion model that are trained, too.
    """

    def __init__(
        self,
        config: InversionConfig,
        subjects: Sequence[Subject],
        num_timesteps: int,
        denoise: Denoise,
        weights: Mapping[str, torch.nn.Parameter] | None = None,
    ) -> None:
        self.config, self.subjects, self.weights = config, tuple(subjects), dict(weights or {})
        self._num_timesteps, self._denoise = num_timesteps, denoise

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `compinv_core.training.loop.TrainingTask`."""
        tokens = [parameter for subject in self.subjects for parameter in subject.token.parameters]
        # At rate 0 the optimiser leaves a word where its own step put it.
        rate = 0.0 if self.subjects[0].token.takes_own_steps else self.config.token_rate
        groups: list[dict[str, Any]] = [{"params": tokens, "lr": rate}]
        if self.weights:
            groups.append({"params": list(self.weights.values()), "lr": self.config.learning_rate})
        return groups

    def loss(self, batch: int, generator: torch.Generator) -> StepLoss:
        """See `training.loop.TrainingTask`; the parts are ``reconstruction``, ``prior``, ``anchor``, ``context``."""
        return evaluated([self.request(batch, generator)], self._denoise)[0]

    def request(self, batch: int, generator: torch.Generator) -> Request:
        """Draw what batch number `batch` asks of the diffusion model; all randomness comes from `generator` (CPU)."""
        present = [(self.subjects[index], count) for index, count in self._mixture(batch)]
        templates, chosen = [], []
        for subject, count in present:
            templates.append(int(torch.randint(len(self.config.sentences), (1,), generator=generator)))
            chosen.append(subject.data.draw(count, generator))
        classes = [
            (pictures, pictures.draw(count, generator))
            for subject, count in present
            if (pictures := subject.pictures_of_class) is not None
        ]
        vectors = [subject.token.vectors for subject, _ in present]
        photos = [
            _Piece(
                subject.data.take(rows, generator),
                subject.encode(template, vector).repeated(count).framed(subject.data.frames_of(rows)),
                (subject, rows),
            )
            for (subject, count), template, rows, vector in zip(present, templates, chosen, vectors, strict=True)
        ]
        of_class = [
            _Piece(
                pictures.take(rows, generator),
                pictures.condition.repeated(len(rows)).framed(pictures.frames_of(rows)),
            )
            for pictures, rows in classes
        ]
        groups = _of_one_size([*photos, *of_class])
        asked = [self._asked(group, generator) for group in groups]
        around = [subject.surroundings.draw(generator) if subject.surroundings else None for subject, _ in present]
        return Request(asked, partial(self._composed, present, vectors, groups, around))

    def _asked(self, pieces: Sequence[_Piece], generator: torch.Generator) -> Asked:
        clean = joined([piece.latents for piece in pieces])
        timesteps = torch.randint(self._num_timesteps, (len(clean),), generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        return Asked(clean, noise, timesteps, joined_conditions([piece.condition for piece in pieces]))

    def _composed(
        self,
        present: Sequence[tuple[Subject, int]],
        vectors: Sequence[torch.Tensor],
        groups: Sequence[Sequence[_Piece]],
        around: Sequence[int | None],
        answers: Sequence[tuple[torch.Tensor, torch.Tensor]],
    ) -> StepLoss:
        """Compose the loss of predictions from the vectors, photos and sentences around the words that were drawn."""
        photos, of_class = [], []
        for group, (prediction, target) in zip(groups, answers, strict=True):
            drawn = [piece.photos for piece in group if piece.photos is not None]
            count = sum(len(rows) for _, rows in drawn)
            if count:
                loss = reconstruction_loss(prediction[:count], target[:count], _weights(drawn))
                photos.append((loss, count))
            if len(prediction) > count:
                loss = reconstruction_loss(prediction[count:], target[count:])
                of_class.append((loss, len(prediction) - count))
        parts = {"reconstruction": _mean(photos)}
        total = parts["reconstruction"]
        anchor = self._anchor_loss(present, vectors)
        if anchor is not None:
            share = self.config.anchor_weight
            total = (1 - share) * total + share * anchor
        if of_class:
            parts["prior"] = _mean(of_class)
            total = total + self.config.prior_weight * parts["prior"]
        if anchor is not None:
            parts["anchor"] = anchor
        context = self._context_loss(present, vectors, around)
        if context is not None:
            parts["context"] = context
            total = total + self.config.context_weight * context
        return StepLoss(total, parts)

    def steady_loss(self, pictures: int = _STEADY) -> float:
        """Return the reconstruction loss of fixed photos, noise and timesteps: how much has been learned.

        Draws nothing of a training's random numbers, and is the same at every call with the same word and weights.
        """
        generator = torch.Generator().manual_seed(0)
        losses = []
        for subject in self.subjects:
            count = -(-pictures // len(self.subjects))
            rows = torch.arange(count) % len(subject.data)
            timesteps = ((torch.arange(count) + 0.5) / count * self._num_timesteps).long()
            condition = subject.encode(0, subject.token.vectors)
            for group in subject.data.by_size(rows):
                means = subject.data.means_of(rows[group])
                noise = torch.randn(means.shape, generator=generator)
                for part in torch.arange(len(group)).split(self.config.batch_size):
                    chosen = rows[group[part]]
                    photos = means[part.to(means.device)]
                    prediction, target = self._denoise(
                        photos,
                        noise[part].to(photos.device),
                        timesteps[group[part]].to(photos.device),
                        condition.repeated(len(part)).framed(subject.data.frames_of(chosen)),
                    )
                    loss = reconstruction_loss(prediction, target, _weights([(subject, chosen)]))
                    losses.append(loss * len(part) / count)
        return float(torch.stack(losses).sum() / len(self.subjects))

    def after_step(self, step: int) -> None:
        """See `compinv_core.training.loop.TrainingTask`."""
        for subject in self.subjects:
            subject.token.after_step(step)

    def active_anchors(self) -> dict[str, float]:
        """See `compinv_core.training.loop.TrainingTask`; those of the first concept."""
        return self.subjects[0].token.active_anchors()

    def distance(self) -> Distance:
        """See `compinv_core.training.loop.TrainingTask`; that of the first concept."""
        return self.subjects[0].token.distance()

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """See `compinv_core.training.loop.TrainingTask`."""
        tensors = {f"weights.{name}": parameter.detach() for name, parameter in self.weights.items()}
        for index, subject in enumerate(self.subjects):
            tensors |= {_state_name(name, index): value for name, value in subject.token.state_tensors().items()}
        return tensors

    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """See `compinv_core.training.loop.TrainingTask`."""
        with torch.no_grad():
            for name, parameter in self.weights.items():
                parameter.copy_(tensors[f"weights.{name}"])
        for index, subject in enumerate(self.subjects):
            names = subject.token.state_tensors()
            subject.token.load_state_tensors({name: tensors[_state_name(name, index)] for name in names})

    def _mixture(self, batch: int) -> list[tuple[int, int]]:
        """Return (index of a subject, photos of it in this batch) of the subjects that have any."""
        number, size = len(self.subjects), self.config.batch_size
        counts = [0] * number
        for position in range(batch * size, (batch + 1) * size):
            counts[position % number] += 1
        return [(index, count) for index, count in enumerate(counts) if count]

    def _anchor_loss(
        self, present: Sequence[tuple[Subject, int]], vectors: Sequence[torch.Tensor]
    ) -> torch.Tensor | None:
        losses = [subject.token.anchor_loss(vector) for (subject, _), vector in zip(present, vectors, strict=True)]
        return self._mean_over_photos(present, losses)

    def _context_loss(
        self, present: Sequence[tuple[Subject, int]], vectors: Sequence[torch.Tensor], around: Sequence[int | None]
    ) -> torch.Tensor | None:
        losses = [
            None if subject.surroundings is None or index is None else subject.surroundings.loss(index, vector)
            for (subject, _), vector, index in zip(present, vectors, around, strict=True)
        ]
        return self._mean_over_photos(present, losses)

    def _mean_over_photos(
        self, present: Sequence[tuple[Subject, int]], losses: Sequence[torch.Tensor | None]
    ) -> torch.Tensor | None:
        """Mean of the concepts' losses over the photos of the batch; None where there are none.

        A concept then weighs as much here as in the reconstruction, so that each is pulled as it would be alone.
        """
        weighted = [
            loss if len(present) == 1 else loss * (count / self.config.batch_size)
            for loss, (_, count) in zip(losses, present, strict=True)
            if loss is not None
        ]
        return torch.stack(weighted).sum() if weighted else None


def reconstruction_loss(
    prediction: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error (float32) of the model's prediction (B, C, h, w), weighted by the concept mask (B, 1, h, w).

    With weights, non-negative and not all zero in any image, each image's error is its weighted mean over positions,
    normalised by the sum of its own weights, so that a small concept counts as much as a large one.
    """
    error = (prediction.float() - target.float()).square()
    if weights is None:
        return error.mean()
    per_image = (error.mean(1, keepdim=True) * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3))
    return per_image.mean()


def _of_one_size(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """Put pictures of one size together, in order."""
    groups: dict[torch.Size, list[_Piece]] = {}
    for piece in pieces:
        groups.setdefault(piece.latents.shape[1:], []).append(piece)
    return list(groups.values())


def _mean(losses: Sequence[tuple[torch.Tensor, int]]) -> torch.Tensor:
    """Mean of losses, each weighed by its number of pictures."""
    if len(losses) == 1:
        return losses[0][0]
    return torch.stack([loss * count for loss, count in losses]).sum() / sum(count for _, count in losses)


def _weights(drawn: Sequence[tuple[Subject, torch.Tensor]]) -> torch.Tensor | None:
    """Return the masks (B, 1, h, w) of the chosen photos, ones where a concept has none; None if no concept has any."""
    if not any(subject.data.has_weights for subject, _ in drawn):
        return None
    return joined([subject.data.weights_of(rows) for subject, rows in drawn])


def _state_name(name: str, index: int) -> str:
    return name if index == 0 else f"{name}.{index}"
