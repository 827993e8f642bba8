"""The word of a concept where a model has several text encoders: a learned token in each, trained together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from .anchors import weighed_alike
from .learned_token import LearnedToken
from .widths import Widths, parts_of


class LearnedWord:
    """Learned tokens side by side; the loss and the training see them as one `LearnedToken`.

    Each is coded over its own text encoder's dictionary and held near its own anchors.

    Parameters
    ----------
    tokens : sequence of LearnedToken
        One for each text encoder, with equally many vectors, all held alike.
    widths : Widths
        In the same order.
    """

    def __init__(self, tokens: Sequence[LearnedToken], widths: Widths) -> None:
        self._tokens, self._widths = tuple(tokens), dict(widths)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What the optimiser changes."""
        return [parameter for token in self._tokens for parameter in token.parameters]

    @property
    def vectors(self) -> torch.Tensor:
        """Tensor (k, D): the vectors, side by side, differentiable."""
        return torch.cat([token.vectors for token in self._tokens], dim=1)

    @property
    def takes_own_steps(self) -> bool:
        """See `LearnedToken`."""
        return self._tokens[0].takes_own_steps

    def anchor_loss(self, vectors: torch.Tensor) -> torch.Tensor | None:
        """Return the mean of the text encoders' anchor losses (Eq. 6), each divided by its own width, or None."""
        parts = zip(self._tokens, parts_of(vectors, self._widths), strict=True)
        losses = [loss for token, part in parts if (loss := token.anchor_loss(part)) is not None]
        return torch.stack(losses).mean() if losses else None

    def after_step(self, step: int) -> None:
        """See `LearnedToken`."""
        for token in self._tokens:
            token.after_step(step)

    def active_anchors(self) -> dict[str, float]:
        """Return the anchors in use and their weights, averaged over the text encoders, heaviest first."""
        return weighed_alike([token.active_anchors() for token in self._tokens])

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Return everything that changes during training."""
        named = zip(self._widths, self._tokens, strict=True)
        return {f"{name}.{key}": value for key, token in named for name, value in token.state_tensors().items()}

    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state_tensors` returned."""
        for key, token in zip(self._widths, self._tokens, strict=True):
            token.load_state_tensors({name: tensors[f"{name}.{key}"] for name in token.state_tensors()})
