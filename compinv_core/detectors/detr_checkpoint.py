"""A DETR as `transformers` saves it, read from a folder, with its ResNet made free of `timm`.

The files of DETR's authors name their ResNet's tensors as `timm` does and so need that package. `transformers` has the
same ResNet of its own; renaming the tensors gives equal numbers without `timm`.

Of the settings only those that shape the network are kept: others make `transformers` look for a backbone or for code
on the network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..basics.errors import UserError, quoted
from ..basics.json_file import read_json_object
from ..basics.tensor_file import read_tensors
from .bounds import LARGEST_FILE

CONFIG_FILE = "config.json"
PROCESSOR_FILE = "preprocessor_config.json"
WEIGHTS_FILE = "model.safetensors"

_LARGEST_SETTINGS = 4_000_000

_RESNETS: dict[str, dict[str, Any]] = {
    "resnet18": {"depths": [2, 2, 2, 2], "layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]},
    "resnet34": {"depths": [3, 4, 6, 3], "layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]},
    "resnet50": {"depths": [3, 4, 6, 3], "layer_type": "bottleneck", "hidden_sizes": [256, 512, 1024, 2048]},
    "resnet101": {"depths": [3, 4, 23, 3], "layer_type": "bottleneck", "hidden_sizes": [256, 512, 1024, 2048]},
}
_SHAPE = (
    "d_model", "num_queries", "num_channels", "encoder_layers", "decoder_layers", "encoder_ffn_dim", "decoder_ffn_dim",
    "encoder_attention_heads", "decoder_attention_heads", "activation_function", "position_embedding_type", "id2label",
)  # fmt: skip
_RESNET_SHAPE = (
    "num_channels", "embedding_size", "hidden_sizes", "depths", "layer_type", "hidden_act", "downsample_in_first_stage",
    "downsample_in_bottleneck", "out_features", "out_indices",
)  # fmt: skip
_BACKBONE_KEY = re.compile(r"(.*backbone\.(?:conv_encoder\.)?model\.)(.*)")


@dataclass(frozen=True)
class DetrCheckpoint:
    """What a folder holds.

    Parameters
    ----------
    settings : dict
        Of `transformers.DetrConfig`, those that shape the network; the backbone is a ResNet of `transformers`.
    processor : dict or None
        Of the image processor; None where the folder has none.
    weights : dict of str to Tensor
        Names as in the file, but for the backbone's.
    """

    settings: dict[str, Any]
    processor: dict[str, Any] | None
    weights: dict[str, Tensor]


def read_detr_checkpoint(folder: Path) -> DetrCheckpoint:
    """Read a folder with ``config.json`` and ``model.safetensors``.

    Raises
    ------
    UserError
        When a file is missing or broken, the model is no DETR, or its backbone is no ResNet.
    """
    settings = _read_json(folder, CONFIG_FILE)
    if settings.get("model_type") != "detr":
        raise UserError(
            f"The model in {folder.name} is of the type {quoted(settings.get('model_type'))}; choose a folder with a "
            "DETR."
        )
    processor = _read_json(folder, PROCESSOR_FILE) if (folder / PROCESSOR_FILE).is_file() else None
    resnet, of_timm = _resnet(settings, folder)
    weights = _read_weights(folder)
    if of_timm:
        layers = 3 if resnet["layer_type"] == "bottleneck" else 2
        weights = {_without_timm(key, layers): tensor for key, tensor in weights.items()}
    shape = {key: settings[key] for key in _SHAPE if key in settings}
    network = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone_config": resnet}
    return DetrCheckpoint({**shape, **network}, processor, weights)


def _resnet(settings: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], bool]:
    """Settings of the backbone for `transformers`, and whether its tensors have timm's names."""
    config = settings.get("backbone_config")
    if isinstance(config, Mapping) and config.get("model_type") == "resnet":
        return {"model_type": "resnet", **{key: config[key] for key in _RESNET_SHAPE if key in config}}, False
    if isinstance(config, Mapping):
        of_timm = config.get("model_type") == "timm_backbone"
        name = config.get("backbone") if of_timm else config.get("model_type")
    else:
        # Older files leave out what was the default then.
        of_timm, name = bool(settings.get("use_timm_backbone", True)), settings.get("backbone") or "resnet50"
    # The hub calls resnet50 "microsoft/resnet-50".
    known = _RESNETS.get(str(name).rpartition("/")[2].replace("-", ""))
    if known is None or settings.get("dilation"):
        dilated = " with dilation" if settings.get("dilation") else ""
        raise UserError(
            f"The DETR in {folder.name} has the backbone {name}{dilated}, which cannot be built here; "
            f"choose one with {', '.join(_RESNETS)}, such as facebook/detr-resnet-50."
        )
    return {"model_type": "resnet", "out_features": ["stage4"], **known}, of_timm


def _without_timm(key: str, layers: int) -> str:
    """The name that `transformers`' ResNet has for a tensor of timm's; `layers` is the convolutions of a block."""
    found = _BACKBONE_KEY.fullmatch(key)
    if found is None:
        return key
    prefix, name = found.groups()
    for pattern, replacement in (
        (r"conv1\.", "embedder.embedder.convolution."),
        (r"bn1\.", "embedder.embedder.normalization."),
        (r"layer(\d)\.(\d+)\.downsample\.0\.", r"encoder.stages.\1.layers.\2.shortcut.convolution."),
        (r"layer(\d)\.(\d+)\.downsample\.1\.", r"encoder.stages.\1.layers.\2.shortcut.normalization."),
        (rf"layer(\d)\.(\d+)\.conv([1-{layers}])\.", r"encoder.stages.\1.layers.\2.layer.\3.convolution."),
        (rf"layer(\d)\.(\d+)\.bn([1-{layers}])\.", r"encoder.stages.\1.layers.\2.layer.\3.normalization."),
    ):
        if re.match(pattern, name):
            renamed = re.sub(f"^{pattern}", replacement, name)
            # timm counts stages and the layers of a block from one.
            return prefix + re.sub(r"(stages|layer)\.(\d+)", lambda m: f"{m[1]}.{int(m[2]) - 1}", renamed)
    return key


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / name).exists():
        raise UserError(
            f"The detector folder {quoted(folder.name)} has no {name}; put a DETR as transformers saves it into "
            "models/compinv/detectors."
        )
    try:
        return read_json_object(folder / name, _LARGEST_SETTINGS)
    except ValueError as error:
        raise UserError(f"{name} in {folder.name} is not readable ({error}); download the detector again.") from error


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise UserError(
            f"The detector folder {quoted(folder.name)} has no {WEIGHTS_FILE}; save the model with safetensors, other "
            "formats are not read."
        )
    file = read_tensors(path, "a detector", "download the detector again", LARGEST_FILE, finite=False)
    return {key: tensor.float() for key, tensor in file.tensors.items()}
