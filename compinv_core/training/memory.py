"""How much memory a training will take, told before its first step."""

from __future__ import annotations

from dataclasses import dataclass

from ..basics.errors import UserError
from .optimizers import STATE_BYTES

_GIGABYTE = 1e9
_FLOAT32_BYTES = 4
# For every cell of a latent. Stable Diffusion 1.5 saves 116,000 numbers for backward, and with gradient checkpointing
# 10,000 and one block's; the rest is for gradients in passing and for what the kernels need.
_ACTIVATIONS_PER_CELL = 200_000
_CHECKPOINTED_PER_CELL = 50_000


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a training needs beside the loaded model.

    Attributes
    ----------
    weights : float
        Float32 copies of the trained weights, and their casts where the model computes in less.
    optimizer : float
        Its states.
    activations : float
        Kept for the backward pass.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """Sum in bytes."""
        return self.weights + self.gradients + self.optimizer + self.activations

    @property
    def state_file(self) -> float:
        """Bytes of the training state on disk: weights and optimiser states."""
        return self.gradients + self.optimizer

    @property
    def description(self) -> str:
        """The sum and its parts for people."""
        return (
            f"{_gigabytes(self.total)} (weights {_gigabytes(self.weights)}, gradients {_gigabytes(self.gradients)}, "
            f"optimiser {_gigabytes(self.optimizer)}, activations {_gigabytes(self.activations)})"
        )

    def check(self, free: float, place: str, cures: str) -> None:
        """Refuse a training that cannot fit into the bytes that are free or can be freed on a device.

        Raises
        ------
        UserError
            With the numbers; `cures` is the end of the sentence.
        """
        if self.total > free:
            raise UserError(
                f"The training needs about {self.description}, but {_gigabytes(free)} are free on {place}; {cures}."
            )


def estimate_memory(
    trained: int, largest: int, optimizer: str, cast_bytes: int, frozen_casts: float, activations: float
) -> MemoryEstimate:
    """Add up what a training needs.

    Parameters
    ----------
    trained : int
        Trained numbers.
    largest : int
        Numbers in the largest trained weight; an optimiser holds an update of that size for a moment.
    optimizer : str
        One of `compinv_core.training.optimizers.OPTIMIZERS`.
    cast_bytes : int
        Bytes per number that the model computes in.
    frozen_casts : float
        Bytes of copies of other weights that are stored in another precision than they compute in.
    activations : float
        Bytes.
    """
    casts = 0 if cast_bytes == _FLOAT32_BYTES else 2 * cast_bytes
    return MemoryEstimate(
        weights=trained * (_FLOAT32_BYTES + casts) + frozen_casts,
        gradients=trained * _FLOAT32_BYTES,
        optimizer=trained * STATE_BYTES[optimizer] + 2 * largest * _FLOAT32_BYTES,
        activations=activations,
    )


def activation_bytes(latent_shape: tuple[int, ...], number_bytes: int, checkpointing: bool) -> float:
    """Return about how many bytes the activations of a step take, rather too many than too few.

    `latent_shape` is (batch, channels, h, w) of one forward pass, `number_bytes` those of a number that the model
    computes in; with `checkpointing` activations are computed twice instead of kept.
    """
    batch, _, height, width = latent_shape
    per_cell = _CHECKPOINTED_PER_CELL if checkpointing else _ACTIVATIONS_PER_CELL
    return float(batch * height * width * per_cell * number_bytes)


def _gigabytes(count: float) -> str:
    return f"{count / _GIGABYTE:.1f} GB"
