"""Textual inversion with semantic inversion: the method's loss (Eq. 10) as a task for the training loop.

``L = (1 - lambda) L_rec + lambda L_anc``. Pure torch: the diffusion model and the text encoder are callables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .anchors import anchor_loss
from .inversion_config import InversionConfig
from .recoding import AnchorRecoder
from .training_loop import StepLoss

__all__ = ["InversionConfig", "InversionData", "TextualInversion", "reconstruction_loss"]

Denoise = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
Encode = Callable[[int, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class InversionData:
    """What is learned from.

    Attributes
    ----------
    latents : Tensor (n, C, h, w), float32
        Encoded photos as the diffusion model takes them (scaled), on the training device.
    weights : Tensor (n, 1, h, w), float32, or None
        Concept masks at latent resolution, 0 to 1; None weighs every position the same.
    num_timesteps : int
        Length of the noise schedule; timesteps are drawn evenly from it.
    """

    latents: torch.Tensor
    weights: torch.Tensor | None
    num_timesteps: int


class TextualInversion:
    """The task of learning k token vectors from photos.

    One sentence is drawn per step and shared by the images of the batch, so that the text encoder runs once per step.
    Photos are not mirrored, since mirroring would teach that lettering, markings and handedness do not matter.

    Parameters
    ----------
    config : InversionConfig
    data : InversionData
    initial : Tensor (k, D), float32
        On the training device.
    denoise : callable
        (latents (B, C, h, w), noise like it, timesteps (B,) int64, context (B, 77, D)) -> (prediction, target), both
        (B, C, h, w).
    encode : callable
        (index of the template, vectors (k, D)) -> context (1, 77, D), differentiable in the vectors.
    recoder : AnchorRecoder, optional
        None is plain textual inversion: the whole loss is the reconstruction.
    """

    def __init__(
        self,
        config: InversionConfig,
        data: InversionData,
        initial: torch.Tensor,
        denoise: Denoise,
        encode: Encode,
        recoder: AnchorRecoder | None = None,
    ) -> None:
        self.config, self.data, self.recoder = config, data, recoder
        self._denoise, self._encode = denoise, encode
        self._trained = 1 if config.preset == "official_2024" else len(initial)
        self._learned = torch.nn.Parameter(initial[: self._trained].clone())
        self._fixed = initial[self._trained :].clone()
        self._codes_to_device()

    @property
    def vectors(self) -> torch.Tensor:
        """Tensor (k, D): the learned vectors, differentiable."""
        return torch.cat([self._learned, self._fixed]) if len(self._fixed) else self._learned

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `compinv_core.training_loop.TrainingTask`."""
        return [{"params": [self._learned], "lr": self.config.learning_rate}]

    def loss(self, generator: torch.Generator) -> StepLoss:
        """See `compinv_core.training_loop.TrainingTask`; the parts are ``reconstruction`` and ``anchor``."""
        latents, batch = self.data.latents, self.config.batch_size
        template = int(torch.randint(len(self.config.sentences), (1,), generator=generator))
        chosen = torch.randint(len(latents), (batch,), generator=generator)
        timesteps = torch.randint(self.data.num_timesteps, (batch,), generator=generator)
        noise = torch.randn((batch, *latents.shape[1:]), generator=generator)
        device = latents.device
        chosen = chosen.to(device)
        vectors = self.vectors
        context = self._encode(template, vectors).expand(batch, -1, -1)
        prediction, target = self._denoise(latents[chosen], noise.to(device), timesteps.to(device), context)
        weights = None if self.data.weights is None else self.data.weights[chosen]
        reconstruction = reconstruction_loss(prediction, target, weights)
        if self.recoder is None:
            return StepLoss(reconstruction, {"reconstruction": reconstruction})
        anchor = anchor_loss(vectors, self._dictionary, self._codes, self.config.reduction)
        share = self.config.anchor_weight
        total = (1 - share) * reconstruction + share * anchor
        return StepLoss(total, {"reconstruction": reconstruction, "anchor": anchor})

    def after_step(self, step: int) -> None:
        """See `compinv_core.training_loop.TrainingTask`."""
        if self.recoder is not None and self.recoder.after_step(step, self.vectors):
            self._codes_to_device()

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """See `compinv_core.training_loop.TrainingTask`."""
        tensors = {"vectors": self._learned.detach()}
        if self.recoder is not None:
            tensors["codes"] = self.recoder.codes
        return tensors

    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """See `compinv_core.training_loop.TrainingTask`."""
        with torch.no_grad():
            self._learned.copy_(tensors["vectors"])
        if self.recoder is not None:
            self.recoder.codes = tensors["codes"]
            self._codes_to_device()

    def _codes_to_device(self) -> None:
        if self.recoder is not None:
            # Copies, since both may have been made under inference mode, whose tensors autograd does not take.
            self._dictionary = self.recoder.anchors.vectors.to(self._learned, copy=True)
            self._codes = self.recoder.codes.to(self._learned, copy=True)


def reconstruction_loss(
    prediction: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error of the model's prediction, weighted by the concept mask where there is one.

    With weights, each image's error is its weighted mean over positions, normalised by the sum of its own weights, so
    that a small concept counts as much as a large one; the images are then averaged.

    Parameters
    ----------
    prediction, target : Tensor (B, C, h, w)
    weights : Tensor (B, 1, h, w), optional
        Non-negative, not all zero in any image.

    Returns
    -------
    Tensor (), float32
    """
    error = (prediction.float() - target.float()).square()
    if weights is None:
        return error.mean()
    per_image = (error.mean(1, keepdim=True) * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3))
    return per_image.mean()
