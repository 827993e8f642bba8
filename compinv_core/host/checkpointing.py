"""Gradient checkpointing: the blocks of the host's network compute twice, and keep nothing in between."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch.utils.checkpoint import checkpoint

BLOCKS = (ResBlock, SpatialTransformer)

Context = Callable[[], AbstractContextManager]


@contextmanager
def gradient_checkpointing(
    network: torch.nn.Module,
    enabled: bool,
    kinds: tuple[type, ...] = BLOCKS,
    without: Collection[torch.nn.Module] = (),
    recomputing: Context = nullcontext,
) -> Iterator[None]:
    """Keep only the inputs of residual and transformer blocks for backward while the block runs.

    Parameters
    ----------
    network : torch.nn.Module
        The host's diffusion network.
    enabled : bool
        False does nothing.
    kinds : tuple of type
        Of the modules that compute twice.
    without : collection of Module
        Of these kinds, those that keep what they compute.
    recomputing : callable
        Makes the context of the second computation.
    """
    blocks = [m for m in network.modules() if isinstance(m, kinds) and m not in without] if enabled else []
    # Another pack may have replaced the method of a block.
    replaced = {block: block.forward for block in blocks if "forward" in block.__dict__}
    try:
        for block in blocks:
            block.forward = partial(_recomputed, block.forward, recomputing)
        yield
    finally:
        for block in blocks:
            del block.forward
        for block, forward in replaced.items():
            block.__dict__["forward"] = forward


def computed_twice(function: Callable[..., torch.Tensor], recomputing: Context, *args: Any) -> Any:
    """Return a function's result, of which backward keeps only the arguments."""
    return checkpoint(
        function,
        *args,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), recomputing()),
    )


def _recomputed(forward: Callable[..., torch.Tensor], recomputing: Context, *args: Any, **kwargs: Any) -> Any:
    # The blocks note their position in the options, which go on changing until backward computes the block again.
    kwargs = {name: dict(value) if isinstance(value, dict) else value for name, value in kwargs.items()}
    args = tuple(dict(value) if isinstance(value, dict) else value for value in args)
    return computed_twice(partial(forward, **kwargs), recomputing, *args)
