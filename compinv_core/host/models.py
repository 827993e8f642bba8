"""A MODEL whose weights stay where they are while gradients are computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..errors import UserError

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


def resident(patcher: ModelPatcher) -> ModelPatcher:
    """Return a patcher whose weights stay where they are while gradients are computed.

    Weights that the host streams in and evicts again (dynamic memory, on GPUs) may be gone before backward needs them.

    Parameters
    ----------
    patcher : ModelPatcher

    Returns
    -------
    ModelPatcher
        The very patcher, or a clone without dynamic memory; all such clones of a patcher share one network, which the
        host reads from the file once.

    Raises
    ------
    UserError
        When the loader that made it cannot load it again without dynamic memory.
    """
    dynamic: Any = patcher
    if not getattr(dynamic, "is_dynamic", lambda: False)():
        return patcher
    try:
        with torch.inference_mode(False):
            return dynamic.get_non_dynamic_delegate()
    except RuntimeError as error:
        raise UserError(
            "The model comes from a loader that cannot load it without dynamic memory; use Load Checkpoint, or start "
            "ComfyUI with --disable-dynamic-vram."
        ) from error
