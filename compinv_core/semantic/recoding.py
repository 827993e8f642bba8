"""Keeping the sparse code of a concept up to date while its embedding moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .. import logger
from .anchors import Anchors
from .sparse_coding import LEAST_SHARE, real_coefficients


@dataclass(frozen=True)
class RecoderSettings:
    """How the code follows the embedding.

    Attributes
    ----------
    max_active : int
        Most anchors with non-zero weight per vector (the paper's c - 1).
    coder : str
        One of `compinv_core.semantic.sparse_coding.CODERS`.
    recode_every : int
        Steps between two codings; 0 keeps the first code.
    momentum : float in [0, 1)
        Share of the old code in the new one; damps jumps between near-equal anchors.
    superclass_share : float in [0, 1]
        Least weight of the superclass, which never leaves the code; the paper keeps the concept in its class.
    least_share : float in [0, 1]
        Share of a vector's length that an anchor has to explain to enter the code. Of 80 anchors in 768 dimensions the
        best explains about 0.1 of a vector that has nothing to do with any.
    """

    max_active: int = 4
    coder: str = "nn_omp"
    recode_every: int = 100
    momentum: float = 0.5
    superclass_share: float = 0.25
    least_share: float = LEAST_SHARE


class AnchorRecoder:
    """The codes delta (k, N) of k learned vectors over a dictionary of anchors.

    The first code is that of the superclass embedding (one-hot, since the superclass is in the dictionary); later
    codes are those of the learned vectors, averaged with what was there.

    Parameters
    ----------
    anchors : Anchors
        The dictionary; must hold the superclass.
    superclass : int
        Its position in the dictionary.
    nearest_token : callable, optional
        (D,) -> (token text, cosine similarity) over the text encoder's whole vocabulary; for the log.
    encoder : str
        Name of the text encoder in the log, where there are several.
    """

    def __init__(
        self,
        anchors: Anchors,
        superclass: int,
        num_vectors: int,
        settings: RecoderSettings,
        nearest_token: Callable[[torch.Tensor], tuple[str, float]] | None = None,
        encoder: str = "",
    ) -> None:
        self.anchors, self.settings, self._encoder = anchors, settings, encoder
        self.superclass, self._nearest_token = superclass, nearest_token
        first = self._code(anchors.vectors[superclass], "start")
        self.codes = first.repeat(num_vectors, 1)

    def after_step(self, step: int, vectors: torch.Tensor) -> bool:
        """Code the vectors (k, D) anew when it is time, after a step (0-based); tell whether the codes changed."""
        every = self.settings.recode_every
        # What is no longer finite is for the training loop to report.
        if not every or (step + 1) % every or not torch.isfinite(vectors).all():
            return False
        keep = self.settings.momentum
        rows = []
        for position, vector in enumerate(vectors.detach().float().cpu()):
            fresh = self._code(vector, f"step {step + 1}, vector {position + 1}")
            rows.append(self._pruned(keep * self.codes[position] + (1 - keep) * fresh))
        self.codes = torch.stack(rows)
        return True

    def active(self) -> dict[str, float]:
        """Return the anchors in use and their weights, averaged over the vectors, heaviest first."""
        return self.anchors.weights(self.codes.mean(0))

    def _code(self, vector: torch.Tensor, moment: str) -> torch.Tensor:
        settings = self.settings
        coefficients = real_coefficients(
            vector, self.anchors.vectors, settings.max_active, settings.coder, settings.least_share
        )
        total = coefficients.sum()
        code = (coefficients / total).float() if total > 0 else self._superclass_alone()
        nearest = ""
        if self._nearest_token is not None:
            token, cosine = self._nearest_token(vector)
            nearest = f", nearest token {token!r} at cosine {cosine:.3f}"
        chosen = ", ".join(f"{noun} {weight:.3f}" for noun, weight in self.anchors.weights(code).items())
        where = f" in {self._encoder}" if self._encoder else ""
        logger.info(
            "Anchors%s at %s: %s (sum before normalising %.4f, norm of the embedding %.4f%s)",
            where, moment, chosen, float(total), float(vector.norm()), nearest,
        )  # fmt: skip
        return code

    def _superclass_alone(self) -> torch.Tensor:
        code = torch.zeros(len(self.anchors))
        code[self.superclass] = 1.0
        return code

    def _pruned(self, code: torch.Tensor) -> torch.Tensor:
        """Keep the superclass and the heaviest others, at most `max_active`; sum 1."""
        others = code.clone()
        others[self.superclass] = 0.0
        kept = torch.zeros_like(code)
        strongest = others.topk(min(self.settings.max_active, len(code)) - 1).indices
        kept[strongest] = others[strongest]
        share = max(float(code[self.superclass]), self.settings.superclass_share)
        if not kept.any():
            share = 1.0
        kept *= (1.0 - share) / max(float(kept.sum()), torch.finfo(torch.float32).tiny)
        kept[self.superclass] = share
        return kept
