"""The optimisers to choose from; they differ in the memory that their states take beside the trained weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ..basics.errors import UserError

OPTIMIZERS = ("adamw", "adamw_8bit", "adafactor")

# Bytes of optimiser state per trained number. Adafactor keeps a row and a column for each matrix, next to nothing.
STATE_BYTES = {"adamw": 8.0, "adamw_8bit": 2.1, "adafactor": 0.05}

_EIGHT_BIT_LIBRARY = "bitsandbytes"
_FUSED_DEVICES = {"cpu", "cuda"}


def check_optimizer(name: str, device: torch.device) -> None:
    """Refuse one of `OPTIMIZERS` that cannot run on the device where the weights are trained."""
    if name == "adamw_8bit" and device.type != "cuda":
        raise UserError(
            f"optimizer adamw_8bit runs on NVIDIA and AMD graphics cards only, and this model trains on {device.type}; "
            "choose adafactor, which saves even more memory."
        )
    if name == "adamw_8bit" and importlib.util.find_spec(_EIGHT_BIT_LIBRARY) is None:
        raise UserError(
            "optimizer adamw_8bit needs the library bitsandbytes; install it into ComfyUI's Python "
            "(pip install bitsandbytes), or choose adafactor."
        )


def make_optimizer(name: str, groups: list[dict[str, Any]], weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """Return an optimiser.

    Parameters
    ----------
    name : {"adamw", "adamw_8bit", "adafactor"}
        ``adamw`` is PyTorch's, ``adamw_8bit`` bitsandbytes', ``adafactor`` that of transformers with a fixed rate and
        factored second moments.
    groups : list of dict
        Parameters and learning rate of each group.
    weight_decay : float
        Share of a parameter, times its rate, that every step takes off.
    """
    if name == "adamw":
        devices = {parameter.device.type for group in groups for parameter in group["params"]}
        # One pass over the memory instead of ten, which is what a step of a whole network waits for.
        return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=devices <= _FUSED_DEVICES)
    if name == "adamw_8bit":
        from bitsandbytes.optim import AdamW8bit  # pyright: ignore[reportMissingImports]

        return AdamW8bit(groups, weight_decay=weight_decay)
    if name == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(groups, scale_parameter=False, relative_step=False, weight_decay=weight_decay)
    raise UserError(f"optimizer is {name!r}; choose one of {', '.join(OPTIMIZERS)}.")


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, float | None]]:
    """Return the state of an optimiser as one level of named values.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Its states may nest, as those of bitsandbytes do.

    Returns
    -------
    tensors : dict of str to Tensor
        By ``<parameter number>.<name>``, with a further name for each level.
    numbers : dict of str to float, int or None
        The other values, which have to come back as what they are.
    """
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, float | None] = {}
    for name, value in _leaves(optimizer.state_dict()["state"]):
        if isinstance(value, torch.Tensor):
            tensors[name] = value
        else:
            numbers[name] = value
    return tensors, numbers


def load_optimizer_state(optimizer: torch.optim.Optimizer, values: Mapping[str, torch.Tensor | float | None]) -> None:
    """Take back what `optimizer_state` returned, tensors and numbers together."""
    state: dict[int, dict[str, Any]] = {}
    for path, value in values.items():
        index, *outer, name = path.split(".")
        level = state.setdefault(int(index), {})
        for key in outer:
            level = level.setdefault(key, {})
        level[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _leaves(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
