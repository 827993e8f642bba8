"""What a diffusion model is told beside the noisy latents: the encoded prompt, and for some the picture's size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True, eq=False)
class Condition:
    """The conditions of B pictures.

    Attributes
    ----------
    tokens : Tensor (B, T, D), float32
        The encoded prompts, the text encoders' parts side by side.
    pooled : Tensor (B, P), float32, or None
        What stands for the whole prompt; None where the model takes no such thing.
    frames : Tensor (B, 4), float32, or None
        Height and width in pixels of the picture that this one was cut from, and where its top left corner lay there.
        None stands for pictures that are whole.
    """

    tokens: torch.Tensor
    pooled: torch.Tensor | None = None
    frames: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def repeated(self, count: int) -> Condition:
        """Return one condition for so many pictures."""
        return self._mapped(lambda tensor: tensor.expand(count, *(-1 for _ in tensor.shape[1:])))

    def rows(self, which: torch.Tensor) -> Condition:
        """Return the conditions at these positions, int64."""
        return self._mapped(lambda tensor: tensor[which.to(tensor.device)])

    def to(self, device: torch.device) -> Condition:
        """Return the condition on a device."""
        return self._mapped(lambda tensor: tensor.to(device))

    def framed(self, frames: torch.Tensor | None) -> Condition:
        """Return the condition with the pictures' frames."""
        return replace(self, frames=frames)

    def _mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Condition:
        return Condition(*(None if each is None else change(each) for each in (self.tokens, self.pooled, self.frames)))  # type: ignore[arg-type]


def joined_conditions(conditions: Sequence[Condition]) -> Condition:
    """Return the conditions of all pictures, in order; all have the same parts."""
    if len(conditions) == 1:
        return conditions[0]
    parts = ([c.tokens for c in conditions], [c.pooled for c in conditions], [c.frames for c in conditions])
    return Condition(*(None if part[0] is None else torch.cat(part) for part in parts))  # type: ignore[arg-type]
