"""Low rank in training: every matrix stays as it is, and beside it two thin factors learn what is added to it.

A layer with the weight W gives ``W x + up (down x)``: the change ``up · down`` of the weight is never written out, and
what is kept for the backward pass is the layer's input and r numbers per position. This is LoRA (Hu et al., 2021) with
a scale of 1, which files write as an ``alpha`` equal to the rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

Layer = torch.nn.Linear | torch.nn.Conv2d
"""A layer that has a low-rank form."""


@dataclass(frozen=True)
class LowRank:
    """How factors are made.

    Attributes
    ----------
    rank : int
        Of every matrix; less where the matrix is smaller.
    seed : int
        Of their random start.
    """

    rank: int
    seed: int


def factor_shapes(weight: Sequence[int], rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of the factors of a weight (out, in) or (out, in, k, k), ``down`` and ``up``.

    With r = min(rank, out, in k k) they are (r, in, k, k), which has the kernel, and (out, r, 1, 1), as programs write
    LoRA files; (r, in) and (out, r) for a matrix.
    """
    rows, *columns = weight
    r = min(rank, rows, math.prod(columns))
    return (r, *columns), (rows, r, *(1 for _ in columns[1:]))


def initial_factors(weight: Sequence[int], rank: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors ``down`` and ``up`` at their start, float32, CPU.

    ``down`` is drawn as PyTorch draws layers (Kaiming, even within ``± 1 / sqrt(in k k)``), and ``up`` is zero, so that
    nothing is changed at first.
    """
    down, up = factor_shapes(weight, rank)
    bound = 1 / math.sqrt(math.prod(down[1:]))
    return (2 * torch.rand(down, generator=generator) - 1) * bound, torch.zeros(up)


def low_rank_output(layer: Layer, inputs: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Return what the factors add to the output of a layer for its inputs.

    Parameters
    ----------
    layer : Linear or Conv2d
        Convolutions pad, stride and dilate as it says; they have one group.
    inputs : Tensor (..., in) or (B, in, h, w)
        Its type and device are those of the computation.
    down, up : Tensor
        Of `factor_shapes`.

    Returns
    -------
    Tensor (..., out) or (B, out, h', w'), like the inputs
    """
    down, up = down.to(inputs), up.to(inputs)
    if isinstance(layer, torch.nn.Linear):
        return torch.nn.functional.linear(torch.nn.functional.linear(inputs, down), up)
    return torch.nn.functional.conv2d(layer._conv_forward(inputs, down, None), up)
