"""How much memory a training will take, told before its first step."""

from __future__ import annotations

from dataclasses import dataclass

from ..basics.errors import UserError
from .optimizers import STATE_BYTES

_GIGABYTE = 1e9
_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Activations:
    """Numbers that a network keeps for the backward pass, for every cell of a latent, rather too many than too few.

    Attributes
    ----------
    whole : int
        Of all layers.
    checkpointed : int
        With gradient checkpointing: the inputs of the blocks, and one block's inside.
    """

    whole: int
    checkpointed: int


# Stable Diffusion 1 saves 114,000 numbers of a cell, and 10,000 with gradient checkpointing beside one block's 10,000;
# the rest is for gradients in passing and for what the kernels need.
SD1_ACTIVATIONS = Activations(200_000, 50_000)
# Stable Diffusion XL saves 210,000, and 9,000 beside one block's 23,000, since up to ten layers make a block.
SDXL_ACTIVATIONS = Activations(370_000, 56_000)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a training needs beside the loaded model.

    Attributes
    ----------
    weights : float
        Float32 copies of the trained weights, or their factors, and casts of these where the model computes in less.
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
        Trained numbers: those of the weights, or of their factors.
    largest : int
        Numbers in the largest trained weight or factor; an optimiser holds an update of that size for a moment.
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


def activation_bytes(
    latent_shape: tuple[int, ...], number_bytes: int, checkpointing: bool, per_cell: Activations = SD1_ACTIVATIONS
) -> float:
    """Return about how many bytes the activations of a step take, rather too many than too few.

    Parameters
    ----------
    latent_shape : tuple of int
        (batch, channels, h, w) of one forward pass.
    number_bytes : int
        Of a number that the model computes in.
    checkpointing : bool
        Whether activations are computed twice instead of kept.
    per_cell : Activations
        Of the kind of network.
    """
    batch, _, height, width = latent_shape
    numbers = per_cell.checkpointed if checkpointing else per_cell.whole
    return float(batch * height * width * numbers * number_bytes)


def _gigabytes(count: float) -> str:
    return f"{count / _GIGABYTE:.1f} GB"
