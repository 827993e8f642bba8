"""One small training that several processes can repeat exactly."""

from __future__ import annotations

from typing import Any

import torch

from compinv_core.inversion_config import InversionConfig


def photos() -> torch.Tensor:
    """Return two fixed noise pictures (2, 64, 64, 3)."""
    return torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0))


def short_config(**settings: Any) -> InversionConfig:
    """Return settings of a training of seconds."""
    return InversionConfig(**{"name": "my-cat", "superclass": "cat", "batch_size": 2, "save_every": 1, **settings})
