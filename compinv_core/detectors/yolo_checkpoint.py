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

from ..basics.errors import UserError, listed, quoted
from ..basics.regular_file import check_regular
from ..basics.tensor_file import check_stored, plain_tensor, read_pickled
from .bounds import LARGEST_FILE, plain_data

DEFAULT_IMAGE_SIZE = 640
"""Side in pixels that ultralytics trains with unless told otherwise."""

_SMALLEST_IMAGE, _LARGEST_IMAGE = 32, 4096
_DEEPEST = 64
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

    Raises
    ------
    UserError
        When the file is missing, broken, no YOLO file, holds foreign classes or what no network has, or is a YOLO of
        another task.
    """
    if not path.is_file():
        raise UserError(f"The detector file {quoted(path.name)} does not exist; put it into models/ultralytics.")
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise UserError("A YOLO file can only be read safely by PyTorch 2.6 or newer; update PyTorch.")
    names = _foreign_names(path)
    stand_ins: list[Any] = [
        (type(name.rpartition(".")[2], (_StandIn,), {"__module__": "stand_in"}), name) for name in names
    ]
    try:
        content = read_pickled(path, LARGEST_FILE, stand_ins)
    except ValueError as error:
        raise _not_yolo(path) from error
    classes: dict[Any, str] = dict(stand_ins)
    network = _network(content)
    if network is None:
        raise _not_yolo(path)
    kind = classes[type(network)].removeprefix(_TASKS)
    if kind not in _KINDS:
        raise UserError(f"{path.name} is a YOLO file of the kind {quoted(kind)}; choose one that detects objects.")
    state = network.state
    labels = _class_names(state.get("names"), path)
    try:
        description = plain_data(state.get("yaml"))
        weights = _weights(network)
    except (RecursionError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{path.name} describes no network ({error}); choose a .pt file of a detector, as ultralytics writes it."
        ) from error
    if not isinstance(description, dict) or not labels or not weights:
        raise _not_yolo(path)
    return YoloCheckpoint(_KINDS[kind], description, labels, _image_size(content, state, path), weights)


def _foreign_names(path: Path) -> list[str]:
    """Names in the pickle that are no tensors; refuses those that no YOLO file has."""
    try:
        check_regular(path, LARGEST_FILE)
        check_stored(path)
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


def _weights(network: _StandIn) -> dict[str, Tensor]:
    found = _tensors(network)
    odd = [name for name, tensor in found.items() if not plain_tensor(tensor)]
    if odd:
        raise ValueError(f"{odd[0]} is no plain tensor")
    return {name: tensor.detach().float() for name, tensor in found.items()}


def _tensors(module: _StandIn, prefix: str = "", depth: int = 0) -> dict[str, Tensor]:
    """The state dict of a network of stand-ins."""
    if depth > _DEEPEST:
        raise ValueError("its layers contain themselves")
    state = module.state
    found: dict[str, Tensor] = {}
    transient = state.get("_non_persistent_buffers_set") or ()
    for group in ("_parameters", "_buffers"):
        for name, tensor in (state.get(group) or {}).items():
            if isinstance(tensor, Tensor) and name not in transient:
                found[f"{prefix}{name}"] = tensor
    for name, child in (state.get("_modules") or {}).items():
        if isinstance(child, _StandIn):
            found |= _tensors(child, f"{prefix}{name}.", depth + 1)
    return found


def _class_names(names: Any, path: Path) -> tuple[str, ...]:
    if isinstance(names, Mapping):
        try:
            numbered = {int(number): name for number, name in names.items()}
        except (TypeError, ValueError):
            numbered = {}
        if sorted(numbered) != list(range(len(names))):
            raise UserError(
                f"The class names in {path.name} are numbered {listed(names)}, where 0 to {max(len(names) - 1, 0)} "
                "were expected; choose another detector, or save it with all its class names."
            )
        names = [numbered[number] for number in range(len(numbered))]
    return tuple(str(name) for name in names) if isinstance(names, (list, tuple)) else ()


def _image_size(content: Mapping[str, Any], state: Mapping[str, Any], path: Path) -> int:
    for arguments in (content.get("train_args"), state.get("args")):
        settings = arguments.state if isinstance(arguments, _StandIn) else arguments
        size = settings.get("imgsz") if isinstance(settings, Mapping) else None
        sizes: list[Any] = list(size) if isinstance(size, (list, tuple)) else [size]
        if sizes in ([], [None]):
            continue
        if not all(isinstance(side, (int, float)) and _SMALLEST_IMAGE <= side <= _LARGEST_IMAGE for side in sizes):
            raise UserError(
                f"The image size (imgsz) in {path.name} is {quoted(size)}, where numbers from {_SMALLEST_IMAGE} to "
                f"{_LARGEST_IMAGE} were expected; choose another detector, or save it again with ultralytics."
            )
        return int(max(sizes))
    return DEFAULT_IMAGE_SIZE


def _not_yolo(path: Path) -> UserError:
    return UserError(
        f"{path.name} is not a YOLO file as ultralytics writes it, or it is broken; choose a .pt file of a detector."
    )
