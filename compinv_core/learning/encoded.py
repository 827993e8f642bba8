"""Pictures as the autoencoder encodes them, and how a training draws from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch


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
    """

    latents: torch.Tensor
    spread: torch.Tensor | None = field(default=None, kw_only=True)
    mirrored: bool = field(default=False, kw_only=True)

    def placed(self, device: torch.device) -> dict[str, Any]:
        """Return the attributes, on a device, for what is made of the pictures there."""
        spread = None if self.spread is None else self.spread.to(device)
        return {"latents": self.latents.to(device), "spread": spread, "mirrored": self.mirrored}

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return the rows (count,) of pictures drawn with repetition."""
        pictures = len(self.latents) // 2 if self.mirrored else len(self.latents)
        rows = torch.randint(pictures, (count,), generator=generator)
        if self.mirrored:
            rows += pictures * torch.randint(2, (count,), generator=generator)
        return rows

    def take(self, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the latents (count, C, h, w) of rows."""
        rows = rows.to(self.latents.device)
        latents = self.latents[rows]
        if self.spread is None:
            return latents
        return latents + self.spread[rows] * torch.randn(latents.shape, generator=generator).to(latents)
