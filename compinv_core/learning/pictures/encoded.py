"""Pictures as the autoencoder encodes them, and how a training draws from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from ..condition import Condition


@dataclass(frozen=True, eq=False)
class Encoded:
    """Encoded pictures.

    Attributes
    ----------
    latents : Tensor (n, C, h, w), float32
        Means of the autoencoder's posterior, as the diffusion model takes them (scaled), on the training device.
    spread : Tensor (n, C, h, w), float32, or None
        Standard deviations of the posterior, which is then sampled anew whenever a picture is taken; None takes means.
    mirrored : bool
        The second half are the mirror images of the first, in the same order; either is drawn with probability 1/2.
    frames : Tensor (n, 4), float32, or None
        See `condition.Condition`; None where the model is not told.
    """

    latents: torch.Tensor
    spread: torch.Tensor | None = field(default=None, kw_only=True)
    mirrored: bool = field(default=False, kw_only=True)
    frames: torch.Tensor | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.latents)

    def placed(self, device: torch.device) -> dict[str, Any]:
        """Return the attributes, on a device, for what is made of the pictures there."""
        spread, frames = (None if each is None else each.to(device) for each in (self.spread, self.frames))
        return {"latents": self.latents.to(device), "spread": spread, "mirrored": self.mirrored, "frames": frames}

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return the rows (count,) of pictures drawn with repetition."""
        pictures = len(self.latents) // 2 if self.mirrored else len(self.latents)
        rows = torch.randint(pictures, (count,), generator=generator)
        if self.mirrored:
            rows += pictures * torch.randint(2, (count,), generator=generator)
        return rows

    def take(self, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the latents (count, C, h, w) of rows."""
        latents = self.means_of(rows)
        if self.spread is None:
            return latents
        rows = rows.to(latents.device)
        return latents + self.spread[rows] * torch.randn(latents.shape, generator=generator).to(latents)

    def means_of(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the latents (count, C, h, w) of rows without their spread."""
        return self.latents[rows.to(self.latents.device)]

    def frames_of(self, rows: torch.Tensor) -> torch.Tensor | None:
        """Return the frames (count, 4) of rows, where there are any."""
        return None if self.frames is None else self.frames[rows.to(self.frames.device)]

    def by_size(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """Return the positions in `rows` of pictures of one size, for each size."""
        return [torch.arange(len(rows))]


@dataclass(frozen=True, eq=False)
class InversionData(Encoded):
    """What a concept is learned from: encoded photos.

    Attributes
    ----------
    weights : Tensor (n, 1, h, w), float32, or None
        Concept masks at latent resolution, 0 to 1; None weighs every position the same.
    """

    weights: torch.Tensor | None = None

    @property
    def has_weights(self) -> bool:
        """Whether any picture has a mask."""
        return self.weights is not None

    def weights_of(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the masks (count, 1, h, w) of rows, ones without any."""
        if self.weights is None:
            return torch.ones_like(self.latents[:1, :1]).expand(len(rows), -1, -1, -1)
        return self.weights[rows.to(self.weights.device)]


@dataclass(frozen=True, eq=False)
class ClassData(Encoded):
    """Pictures of the concept's class, by which the model remembers it.

    Attributes
    ----------
    condition : Condition
        The encoded class prompt, of one picture.
    """

    condition: Condition
