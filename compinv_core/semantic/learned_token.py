"""The word that is learned for one concept: its vectors, and the anchors that hold them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .anchors import anchor_loss
from .hold import Hold
from .recoding import AnchorRecoder


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
    """

    def __init__(
        self,
        initial: torch.Tensor,
        recoder: AnchorRecoder | None = None,
        reduction: str = "seq_mean",
        hold: Hold | None = None,
    ) -> None:
        self.recoder, self._reduction, self._hold = recoder, reduction, hold or Hold()
        self.parameter = torch.nn.Parameter(initial.clone())
        self._codes_to_device()

    @property
    def vectors(self) -> torch.Tensor:
        """Tensor (k, D): the vectors, differentiable."""
        return self.parameter

    def anchor_loss(self, vectors: torch.Tensor) -> torch.Tensor | None:
        """Return the distance of the vectors to their anchors (Eq. 6), or None without anchors, or with a bound alone.

        `vectors` (k, D) are passed in, so that one graph serves both losses.
        """
        if self.recoder is None or not self._hold.has_loss:
            return None
        return anchor_loss(vectors, self._dictionary, self._codes, self._reduction)

    def after_step(self, step: int) -> None:
        """Put the vectors back onto their bound, and code the anchors anew when it is time; `step` was just done."""
        if self.recoder is None:
            return
        if self.recoder.after_step(step, self.vectors):
            self._codes_to_device()
        if self._hold.has_bound:
            points = self._codes @ self._dictionary
            norm = float(self._dictionary[self.recoder.superclass].norm())
            with torch.no_grad():
                self.parameter.copy_(self._hold.held(self.parameter, points, norm))

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

    def _codes_to_device(self) -> None:
        if self.recoder is not None:
            # Copies, since both may have been made under inference mode, whose tensors autograd does not take.
            self._dictionary = self.recoder.anchors.vectors.to(self.parameter, copy=True)
            self._codes = self.recoder.codes.to(self.parameter, copy=True)
