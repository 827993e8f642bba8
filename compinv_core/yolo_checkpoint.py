"""Reading a YOLO file of ultralytics without running anything that is in it.

Such a ``.pt`` file is a pickle of the whole network as Python objects, and unpickling those classes runs their code:
even an allow-list of ultralytics' own classes would let a file call their constructors, some of which evaluate text.
So every class in the file is replaced by an inert stand-in while PyTorch's ``weights_only`` unpickler reads it. What is
kept are tensors, the network's description and its class names; `yolo` builds a new network from those.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import UserError

DEFAULT_IMAGE_SIZE = 640
"""Side in pixels that ultralytics trains with unless told otherwise."""

_SMALLEST_IMAGE, _LARGEST_IMAGE = 32, 4096
_TASKS = "ultralytics.nn.tasks."
_KINDS = {
    "DetectionModel": "DetectionModel",
    "YOLOv10DetectionModel": "DetectionModel",
    "SegmentationModel": "SegmentationModel",
}
# What a YOLO file may name beside tensors: layers, bookkeeping of its training, and its loss.
_EXPECTED = re.compile(
    r"(ultralytics|torch\.nn|torchvision)\.[\w.]+"
    r"|numpy\.(_?core\.)?(multiarray\.)?(scalar|dtype|ndarray|_reconstruct|float64|float32|int64)"
    r"|pathlib\.(_local\.)?\w*Path"
    r"|(types|argparse)\.(Simple)?Namespace"
    r"|datetime\.\w+"
    r"|builtins\.getattr"
)
_YOLOV5 = re.compile(r"(models|utils)\.\w+\.\w+")


@dataclass(frozen=True)
class YoloCheckpoint:
    """What is kept of a YOLO file.

    Parameters
    ----------
    kind : str
        ``DetectionModel`` or ``SegmentationModel``.
    description : dict
        The network as in ultralytics' model YAML: plain numbers, texts, lists and dictionaries.
    names : tuple of str
        Of the classes, in the order of the network's outputs.
    image_size : int
        Longer side in pixels that the network was trained with.
    weights : dict of str to Tensor
        The network's state, float32.
    """

    kind: str
    description: dict[str, Any]
    names: tuple[str, ...]
    image_size: int
    weights: dict[str, Tensor]


class _StandIn:
    """Takes the place of any class or function that a file names: it keeps the state and does nothing."""

    state: Mapping[str, Any] = {}

    def __init__(self, *args: Any) -> None:
        """Accept whatever the file calls the class or function with."""

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, Mapping) else {}


def read_yolo_checkpoint(path: Path) -> YoloCheckpoint:
    """Read a ``.pt`` file as ultralytics writes it.

    Parameters
    ----------
    path : Path

    Returns
    -------
    YoloCheckpoint

    Raises
    ------
    UserError
        When the file is missing, broken, no YOLO file, holds foreign classes, or is a YOLO of another task.
    """
    if not path.is_file():
        raise UserError(f"The detector file {path.name!r} does not exist; put it into models/ultralytics.")
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise UserError("A YOLO file can only be read safely by PyTorch 2.6 or newer; update PyTorch.")
    names = _foreign_names(path)
    stand_ins: list[Any] = [
        (type(name.rpartition(".")[2], (_StandIn,), {"__module__": "stand_in"}), name) for name in names
    ]
    try:
        with torch.serialization.safe_globals(stand_ins):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle may raise anything
        raise _not_yolo(path) from error
    classes: dict[Any, str] = dict(stand_ins)
    network = _network(content)
    if network is None:
        raise _not_yolo(path)
    kind = classes[type(network)].removeprefix(_TASKS)
    if kind not in _KINDS:
        raise UserError(f"{path.name} is a YOLO file of the kind {kind}; choose one that detects objects.")
    state = network.state
    description = _plain(state.get("yaml"))
    labels = _class_names(state.get("names"))
    try:
        weights = {key: tensor.detach().float() for key, tensor in _tensors(network).items()}
    except (RecursionError, AttributeError) as error:
        raise _not_yolo(path) from error
    if not isinstance(description, dict) or not labels or not weights:
        raise _not_yolo(path)
    return YoloCheckpoint(_KINDS[kind], description, labels, _image_size(content, state), weights)


def _foreign_names(path: Path) -> list[str]:
    """Names in the pickle that are no tensors; refuses those that no YOLO file has."""
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception as error:  # a file of another kind may raise anything
        raise _not_yolo(path) from error
    for name in names:
        if _YOLOV5.fullmatch(name):
            raise UserError(
                f"{path.name} was made by the old YOLOv5 repository; use the file of the same model for ultralytics "
                "(its name ends in u.pt)."
            )
        if not _EXPECTED.fullmatch(name):
            raise UserError(
                f"{path.name} contains {name}, which is no part of a YOLO network and could run code; "
                "choose a file from a source that you trust."
            )
    return names


def _network(content: Any) -> _StandIn | None:
    if not isinstance(content, Mapping):
        return None
    # The moving average, where there is one, is what ultralytics itself would use.
    candidates = (content.get("ema"), content.get("model"))
    return next((candidate for candidate in candidates if isinstance(candidate, _StandIn)), None)


def _tensors(module: _StandIn, prefix: str = "") -> dict[str, Tensor]:
    """The state dict of a network of stand-ins."""
    state = module.state
    found: dict[str, Tensor] = {}
    transient = state.get("_non_persistent_buffers_set") or ()
    for group in ("_parameters", "_buffers"):
        for name, tensor in (state.get(group) or {}).items():
            if isinstance(tensor, Tensor) and name not in transient:
                found[f"{prefix}{name}"] = tensor
    for name, child in (state.get("_modules") or {}).items():
        if isinstance(child, _StandIn):
            found |= _tensors(child, f"{prefix}{name}.")
    return found


def _plain(value: Any) -> Any:
    """The value as plain data; None where anything else is in it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool)) else None


def _class_names(names: Any) -> tuple[str, ...]:
    if isinstance(names, Mapping):
        try:
            names = [names[index] for index in range(len(names))]
        except KeyError:
            return ()
    return tuple(str(name) for name in names) if isinstance(names, (list, tuple)) else ()


def _image_size(content: Mapping[str, Any], state: Mapping[str, Any]) -> int:
    for arguments in (content.get("train_args"), state.get("args")):
        settings = arguments.state if isinstance(arguments, _StandIn) else arguments
        size = settings.get("imgsz") if isinstance(settings, Mapping) else None
        size = max(size, default=None) if isinstance(size, (list, tuple)) else size
        if isinstance(size, (int, float)) and _SMALLEST_IMAGE <= size <= _LARGEST_IMAGE:
            return int(size)
    return DEFAULT_IMAGE_SIZE


def _not_yolo(path: Path) -> UserError:
    return UserError(
        f"{path.name} is not a YOLO file as ultralytics writes it, or it is broken; choose a .pt file of a detector."
    )
