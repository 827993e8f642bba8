"""The word that is learned for one concept: its vectors, and the anchors that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from .anchors import anchor_loss, weighed_alike
from .hold import SPHERE, Distance, Hold
from .recoding import AnchorRecoder
from .widths import Widths, parts_of


class LearnedToken:
    """k token vectors in training, with their sparse code over the anchors.

    Parameters
    ----------
    initial : Tensor (k, D), float32
        On the training device.
    recoder : AnchorRecoder, optional
        None holds the vectors by no anchors.
    reduction : str
        Of the anchor loss; see `compinv_core.semantic.anchors.anchor_loss`.
    hold : Hold
        By what they are held, where there are anchors.
    norm : float, optional
        Of the vectors where they are held on a sphere; None takes the class noun's.
    """

    def __init__(
        self,
        initial: torch.Tensor,
        recoder: AnchorRecoder | None = None,
        reduction: str = "seq_mean",
        hold: Hold | None = None,
        norm: float | None = None,
    ) -> None:
        self.recoder, self._reduction, self._hold, self._norm = recoder, reduction, hold or Hold(), norm
        self.parameter, self._initial = torch.nn.Parameter(initial.clone()), initial
        self._codes_to_device()
        if self.takes_own_steps:
            self._put_back()

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What the optimiser changes."""
        return [self.parameter]

    @property
    def vectors(self) -> torch.Tensor:
        """Tensor (k, D): the vectors, differentiable."""
        return self.parameter

    @property
    def takes_own_steps(self) -> bool:
        """Whether `after_step` moves the vectors by their gradient, so that the optimiser must not."""
        return self.recoder is not None and self._hold.kind == SPHERE

    def anchor_loss(self, vectors: torch.Tensor) -> torch.Tensor | None:
        """Return the distance of the vectors to their anchors (Eq. 6), or None without anchors, or with a bound alone.

        `vectors` (k, D) are passed in, so that one graph serves both losses.
        """
        if self.recoder is None or not self._hold.has_loss:
            return None
        return anchor_loss(vectors, self._dictionary, self._codes, self._reduction)

    def after_step(self, step: int) -> None:
        """Follow up on a step: the vectors onto their bound, or further on their sphere; anchors coded anew in time.

        `step` was just done; its gradient is still there.
        """
        if self.recoder is None:
            return
        if self.recoder.after_step(step, self.vectors):
            self._codes_to_device()
        if self._hold.has_bound:
            self._put_back()

    def active_anchors(self) -> dict[str, float]:
        """Return the anchors in use and their weights, heaviest first; empty without anchors."""
        return {} if self.recoder is None else self.recoder.active()

    def distance(self) -> Distance:
        """Return how far the vectors are from their anchor points; without anchors, from where they started."""
        with torch.no_grad():
            if self.recoder is None:
                return Hold().distance(self.parameter, self._initial)
            return self._hold.distance(self.parameter, self._points())

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Return everything that changes during training."""
        tensors = {"vectors": self.parameter.detach()}
        if self.recoder is not None:
            tensors["codes"] = self.recoder.codes
        return tensors

    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state_tensors` returned."""
        with torch.no_grad():
            self.parameter.copy_(tensors["vectors"])
        if self.recoder is not None:
            self.recoder.codes = tensors["codes"]
            self._codes_to_device()

    def _put_back(self) -> None:
        """Put the vectors where their hold wants them."""
        assert self.recoder is not None
        points = self._points()
        norm = self._norm or float(self._dictionary[self.recoder.superclass].norm())
        gradient = self.parameter.grad
        with torch.no_grad():
            if self.takes_own_steps and gradient is not None:
                self.parameter.copy_(self._hold.stepped(self.parameter, gradient, points, norm))
            else:
                self.parameter.copy_(self._hold.held(self.parameter, points, norm))

    def _points(self) -> torch.Tensor:
        return (self._codes @ self._dictionary)[: len(self.parameter)]

    def _codes_to_device(self) -> None:
        if self.recoder is not None:
            # Copies, since both may have been made under inference mode, whose tensors autograd does not take.
            self._dictionary = self.recoder.anchors.vectors.to(self.parameter, copy=True)
            self._codes = self.recoder.codes.to(self.parameter, copy=True)


class LearnedWord:
    """The word where there are several text encoders: learned tokens side by side, for the training one of them.

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

    def distance(self) -> Distance:
        """Return that of the text encoder whose part is farthest."""
        return max((token.distance() for token in self._tokens), key=lambda distance: distance.value)

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Return everything that changes during training."""
        named = zip(self._widths, self._tokens, strict=True)
        return {f"{name}.{key}": value for key, token in named for name, value in token.state_tensors().items()}

    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state_tensors` returned."""
        for key, token in zip(self._widths, self._tokens, strict=True):
            token.load_state_tensors({name: tensors[f"{name}.{key}"] for name in token.state_tensors()})
