"""What the pack asks of a MODEL and a CLIP: that they are Stable Diffusion 1, and where their parts are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.supported_models
import torch

from ..errors import UserError

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP
    from comfy.sd1_clip import SDClipModel, SDTokenizer

_CLIP_L = "clip_l"


def require_sd1(node_name: str, model: ModelPatcher | None = None, clip: CLIP | None = None) -> None:
    """Refuse models and text encoders that are not of the Stable Diffusion 1 family.

    Parameters
    ----------
    node_name : str
        Name of the node as the person at the graph sees it; opens the sentence.
    model : ModelPatcher, optional
        A MODEL input. Not checked when None.
    clip : CLIP, optional
        A CLIP input. Not checked when None.

    Raises
    ------
    UserError
        Naming what was found and which input to change.
    """
    if model is not None and not is_sd1_model(model):
        raise UserError(
            f"{node_name}: the model is {_family(model)}, but only Stable Diffusion 1 models are supported; "
            "connect `model` to an SD 1.x checkpoint."
        )
    if clip is not None and not is_sd1_clip(clip):
        raise UserError(
            f"{node_name}: the text encoder is {_text_encoder(clip)}, but only the CLIP-L of Stable Diffusion 1 is "
            "supported; connect `clip` to the same SD 1.x checkpoint as `model`."
        )


def is_sd1_model(model: ModelPatcher) -> bool:
    """Tell whether a MODEL is Stable Diffusion 1 (also inpainting, v-prediction and fine-tuned checkpoints).

    Parameters
    ----------
    model : ModelPatcher

    Returns
    -------
    bool
    """
    return isinstance(getattr(model.model, "model_config", None), comfy.supported_models.SD15)


def is_sd1_clip(clip: CLIP) -> bool:
    """Tell whether a CLIP is the single CLIP-L text encoder of Stable Diffusion 1.

    Parameters
    ----------
    clip : CLIP

    Returns
    -------
    bool
    """
    parts = (clip.cond_stage_model, clip.tokenizer)
    return all(getattr(part, "clip", None) == _CLIP_L and hasattr(part, _CLIP_L) for part in parts)


def sd1_text_parts(clip: CLIP) -> tuple[SDClipModel, SDTokenizer]:
    """Return the CLIP-L text model and tokenizer inside a CLIP.

    Parameters
    ----------
    clip : CLIP
        Checked by `require_sd1`.

    Returns
    -------
    tuple of (SDClipModel, SDTokenizer)
    """
    return getattr(clip.cond_stage_model, _CLIP_L), getattr(clip.tokenizer, _CLIP_L)


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


def _family(model: ModelPatcher) -> str:
    config: Any = getattr(model.model, "model_config", None)
    return type(config).__name__ if config is not None else type(model.model).__name__


def _text_encoder(clip: CLIP) -> str:
    return type(clip.cond_stage_model).__name__
