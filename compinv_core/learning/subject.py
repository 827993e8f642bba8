"""A concept as its training sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..semantic.context import Surroundings
from ..semantic.learned_token import LearnedToken, LearnedWord
from .condition import Condition
from .pictures.encoded import ClassData, InversionData
from .pictures.of_sizes import PhotosOfSizes

Encode = Callable[[int, torch.Tensor], Condition]


@dataclass(frozen=True, eq=False)
class Subject:
    """What the loss sees of a concept in training.

    Attributes
    ----------
    encode : callable
        (index of the template, vectors (k, D)) -> the condition of one picture, differentiable in the vectors.
    pictures_of_class : ClassData, optional
        None learns without a prior loss.
    surroundings : Surroundings, optional
        None learns without a context loss.
    """

    token: LearnedToken | LearnedWord
    data: InversionData | PhotosOfSizes
    encode: Encode
    pictures_of_class: ClassData | None = None
    surroundings: Surroundings | None = None
