"""A network that looks at pictures as `transformers` saves it: its settings, its preprocessing and its weights.

Only settings that shape the network are kept: others make `transformers` look for code or files elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..basics.errors import UserError, quoted
from ..basics.json_file import read_json_object
from ..basics.tensor_file import plain_tensor, read_pickled, read_tensors
from ..detectors.bounds import LARGEST_FILE

CONFIG_FILE, PROCESSOR_FILE = "config.json", "preprocessor_config.json"
SAFE_WEIGHTS, PICKLED_WEIGHTS = "model.safetensors", "pytorch_model.bin"
TOKENIZER_FILES = ("vocab.json", "merges.txt")
OWN_FOLDER = "compinv/encoders"
"""Below ``models/``; each folder in it holds one encoder."""

CURE = "download it again, or choose another"
_LARGEST_SETTINGS = 4_000_000
_TRANSFORMER = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps",
    "image_size", "patch_size", "num_channels",
)  # fmt: skip
_TEXT = ("vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")
_SHAPES: dict[str, tuple[str, ...]] = {
    "clip": ("projection_dim",),
    "vit": (*_TRANSFORMER, "qkv_bias"),
    "dinov2": (*_TRANSFORMER, "qkv_bias", "mlp_ratio", "layerscale_value", "use_swiglu_ffn"),
}
CLIP_KINDS, LOOK_KINDS = ("clip",), ("vit", "dinov2")
"""Kinds of networks (``model_type``): those that read the prompt, too, and those that only look."""


@dataclass(frozen=True)
class EncoderFolder:
    """What a folder holds.

    Parameters
    ----------
    folder : Path
    kind : str
        One of `CLIP_KINDS` or `LOOK_KINDS`.
    settings, processor : dict
        Of the network, and of its preprocessing (empty where the folder has none).
    weights : dict of str to Tensor
    """

    folder: Path
    kind: str
    settings: dict[str, Any]
    processor: dict[str, Any]
    weights: dict[str, Tensor]


def kind_of(folder: Path) -> str:
    """Return the kind of network in a folder, or "" where there is none that can be read."""
    try:
        kind = read_json_object(folder / CONFIG_FILE, _LARGEST_SETTINGS).get("model_type")
    except (OSError, ValueError):
        return ""
    return kind if isinstance(kind, str) and kind in _SHAPES else ""


def read_encoder(folder: Path, kinds: tuple[str, ...]) -> EncoderFolder:
    """Read a folder with ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``.

    Raises
    ------
    UserError
        When a file is missing or broken, or the network is of another kind than `kinds`.
    """
    settings = _read_json(folder, CONFIG_FILE)
    kind = settings.get("model_type")
    if kind not in kinds:
        raise UserError(
            f"The network in {quoted(folder.name)} is of the type {quoted(kind)}, where one of {', '.join(kinds)} is "
            "needed; choose another."
        )
    shape = {key: settings[key] for key in _SHAPES[kind] if key in settings}
    if kind == "clip":
        shape |= {part: _part(settings, part, folder) for part in ("text_config", "vision_config")}
    processor = _read_json(folder, PROCESSOR_FILE) if (folder / PROCESSOR_FILE).is_file() else {}
    return EncoderFolder(folder, kind, shape, processor, _read_weights(folder))


def _part(settings: Mapping[str, Any], part: str, folder: Path) -> dict[str, Any]:
    values = settings.get(part) or {}
    if not isinstance(values, Mapping):
        raise UserError(f"{part} in {CONFIG_FILE} of {quoted(folder.name)} is no object; {CURE}.")
    return {key: values[key] for key in (*_TRANSFORMER, *_TEXT, "projection_dim") if key in values}


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / name).is_file():
        raise UserError(
            f"The folder {quoted(folder.name)} has no {name}; put a network as transformers saves it into "
            f"models/{OWN_FOLDER}."
        )
    try:
        return read_json_object(folder / name, _LARGEST_SETTINGS)
    except ValueError as error:
        raise UserError(f"{name} in {quoted(folder.name)} is not readable ({error}); {CURE}.") from error


def _read_weights(folder: Path) -> dict[str, Tensor]:
    safe, pickled = folder / SAFE_WEIGHTS, folder / PICKLED_WEIGHTS
    if safe.is_file():
        tensors = read_tensors(safe, "a network", CURE, LARGEST_FILE, finite=False).tensors
    elif pickled.is_file():
        tensors = _unpickled(pickled)
    else:
        raise UserError(
            f"The folder {quoted(folder.name)} has neither {SAFE_WEIGHTS} nor {PICKLED_WEIGHTS}; other formats are not "
            "read."
        )
    return {key: tensor.float() for key, tensor in tensors.items() if tensor.is_floating_point()}


def _unpickled(path: Path) -> dict[str, Tensor]:
    """Tensors of a file of torch's, of which nothing is run."""
    try:
        tensors = read_pickled(path, LARGEST_FILE)
    except ValueError as error:
        raise UserError(f"{path.name} in {quoted(path.parent.name)} holds no tensors alone; {CURE}.") from error
    if not isinstance(tensors, Mapping) or not all(
        isinstance(each, Tensor) and plain_tensor(each) for each in tensors.values()
    ):
        raise UserError(f"{path.name} in {quoted(path.parent.name)} holds no tensors alone; {CURE}.")
    return {str(key): tensor for key, tensor in tensors.items()}
