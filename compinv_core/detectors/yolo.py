"""YOLO detectors, through ultralytics' network layers only.

Its trainer and predictor are not used: those write into the working directory, look for updates and install packages.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ..basics.content import ByContent
from ..basics.errors import UserError, quoted
from .bounds import MemoryBudget
from .detections import Detection, sorted_detections
from .yolo_checkpoint import YoloCheckpoint, read_yolo_checkpoint

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements-yolo.txt"
"""What YOLO detectors need beside the pack's own requirements."""

# As ultralytics' own prediction: grey border, and boxes of one class that overlap more than this are one object.
_PADDING = 114 / 255
_SAME_OBJECT_IOU = 0.7
_MOST_OBJECTS = 300
# Layers that fetch something from the network when they are built.
_FORBIDDEN_LAYERS = {"TorchVision"}


@dataclass(frozen=True, eq=False)
class YoloDetector(ByContent):
    """A YOLO network and what it needs to name what it finds; a `detections.Detector`.

    Parameters
    ----------
    network : Module
        (B, 3, h, w) in [0, 1] to boxes and scores; its own device is used.
    class_names : tuple of str
        In the order of the network's outputs.
    image_size : int
        Longer side in pixels at which pictures are looked at.
    """

    name: str
    network: nn.Module
    class_names: tuple[str, ...]
    image_size: int
    threshold: float

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, each once."""
        return tuple(dict.fromkeys(self.class_names))

    @torch.inference_mode()
    def detect(self, images: Tensor) -> list[tuple[Detection, ...]]:
        """Find objects, as `detections.Detector.detect` says."""
        parameter = next(self.network.parameters())
        pictures = images.movedim(-1, 1).to(parameter)
        stride = int(self.network.stride.max())  # type: ignore[union-attr,operator]
        padded, scale, left, top = _letterbox(pictures, self.image_size, stride)
        output = self.network(padded)
        while isinstance(output, (list, tuple)):
            output = output[0]
        end_to_end = bool(getattr(self.network, "end2end", False))
        height, width = images.shape[1:3]
        shift = output.new_tensor([left, top, left, top])
        size = output.new_tensor([width, height, width, height]) * scale
        found = []
        for prediction in output.float():
            candidates = _end_to_end if end_to_end else _suppressed
            boxes, scores, classes = candidates(prediction, len(self.class_names), self.threshold)
            names = [self.class_names[index] for index in classes.tolist()]
            fractions = ((boxes - shift) / size).tolist()
            found.append(sorted_detections(zip(names, scores.tolist(), fractions, strict=True)))
        return found


def load_yolo(path: Path, name: str, threshold: float, settings_folder: Path) -> YoloDetector:
    """Load a ``.pt`` file as ultralytics writes it.

    Parameters
    ----------
    name : str
        For reports.
    threshold : float
        In [0, 1].
    settings_folder : Path
        Where ultralytics may keep its settings file, which it writes when it is imported.

    Raises
    ------
    UserError
        When the file is not one, or ultralytics is missing or cannot build its network.
    """
    checkpoint = read_yolo_checkpoint(path)
    with quiet_ultralytics(settings_folder):
        network = _build(checkpoint, path)
    return YoloDetector(name, network.eval().requires_grad_(False), checkpoint.names, checkpoint.image_size, threshold)


@contextmanager
def quiet_ultralytics(settings_folder: Path) -> Iterator[None]:
    """Import ultralytics so that it looks for no network, installs nothing, reports nothing, and changes no library.

    The environment is as before afterwards, and so are the functions of other libraries that it replaces: its
    ``PIL.Image.open`` would install a package where a picture is broken. Where another part of the process has imported
    ultralytics already, its settings stay as they are.

    Parameters
    ----------
    settings_folder : Path
        Made if need be; not used where ``YOLO_CONFIG_DIR`` is set.

    Raises
    ------
    UserError
        When ultralytics cannot be imported.
    """
    settings_folder.mkdir(parents=True, exist_ok=True)
    before = dict(os.environ)
    os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false")
    os.environ.setdefault("YOLO_CONFIG_DIR", str(settings_folder))
    opening, saving = Image.open, torch.save
    try:
        first = "ultralytics" not in sys.modules
        try:
            import ultralytics.utils

            if first:
                ultralytics.utils.SETTINGS.update({"sync": False})
            import ultralytics.nn.tasks
        except ImportError as error:
            raise UserError(
                f"YOLO detectors need the package ultralytics, which cannot be imported ({error}); type: "
                f'"{sys.executable}" -m pip install -r "{REQUIREMENTS}"'
            ) from error
        finally:
            Image.open, torch.save = opening, saving
        yield
    finally:
        for key in set(os.environ) - set(before):
            del os.environ[key]
        os.environ.update(before)


def _build(checkpoint: YoloCheckpoint, path: Path) -> nn.Module:
    """A new network from the description, with the weights of the file."""
    from ultralytics.nn import tasks
    from ultralytics.nn.modules.conv import Conv

    description = checkpoint.description
    _check_layers(description, path)
    _check_activation(description.get("activation"), path)
    activation = Conv.default_act
    try:
        channels = int(description.get("channels") or description.get("ch") or 3)
        with MemoryBudget(checkpoint.weights):
            network = getattr(tasks, checkpoint.kind)(
                dict(description), ch=channels, nc=len(checkpoint.names), verbose=False
            )
        if not any(".bn." in name for name in checkpoint.weights):
            # The file's batch norms were fused into the convolutions before it was saved.
            network.fuse(verbose=False)
        network.load_state_dict(checkpoint.weights)
    except Exception as error:  # a description that does not fit may fail in any layer
        raise UserError(
            f"The network in {path.name} cannot be built by this version of ultralytics; "
            "update ultralytics, or choose another detector."
        ) from error
    finally:
        # Some versions leave a file's activation behind for all networks built later.
        Conv.default_act = activation
    if channels != 3:
        raise UserError(f"{path.name} expects pictures of {channels} channels; choose a detector for colour pictures.")
    return network.float()


def _check_layers(description: Mapping[str, Any], path: Path) -> None:
    """Allow layers only: ultralytics would look up and call whatever name is written there."""
    from ultralytics.nn import modules

    parts = [description.get(part) or [] for part in ("backbone", "head")]
    rows = [row for part in parts for row in (part if isinstance(part, list) else [part])]
    for row in rows:
        name = row[2] if isinstance(row, list) and len(row) == 4 else None
        source, _, layer = name.rpartition(".") if isinstance(name, str) else ("", "", "")
        home = {"": modules, "nn": nn}.get(source)
        found = getattr(home, layer, None)
        if layer in _FORBIDDEN_LAYERS or not (isinstance(found, type) and issubclass(found, nn.Module)):
            raise UserError(
                f"{path.name} describes a network with {quoted(name)}, which is no layer of this version of "
                "ultralytics; update ultralytics, or choose another detector."
            )


def _check_activation(text: Any, path: Path) -> None:
    """Allow ``nn.Class(literals)`` only: ultralytics would evaluate whatever is written there."""
    if text is None:
        return
    try:
        call = ast.parse(str(text).strip(), mode="eval").body
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            home, layer = ast.unparse(call.func.value), getattr(nn, call.func.attr, None)
            for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
                ast.literal_eval(argument)
            if home in ("nn", "torch.nn") and isinstance(layer, type) and issubclass(layer, nn.Module):
                return
    except (SyntaxError, ValueError):
        pass
    raise UserError(f"{path.name} describes an activation that is no layer of PyTorch; choose another detector.")


def _letterbox(pictures: Tensor, side: int, stride: int) -> tuple[Tensor, float, int, int]:
    """Scale pictures (B, 3, H, W) so that the longer side is `side`, and pad both to a multiple of the stride.

    Returns the pictures, the scale, and the borders on the left and at the top in pixels.
    """
    height, width = pictures.shape[-2:]
    side = -(-side // stride) * stride
    scale = side / max(height, width)
    new_height, new_width = (max(1, round(length * scale)) for length in (height, width))
    if (new_height, new_width) != (height, width):
        pictures = nn.functional.interpolate(pictures, (new_height, new_width), mode="bilinear", align_corners=False)
    down, across = -new_height % stride, -new_width % stride
    left, top = across // 2, down // 2
    padded = nn.functional.pad(pictures, (left, across - left, top, down - top), value=_PADDING)
    return padded, scale, left, top


def _suppressed(prediction: Tensor, count: int, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (M, 4), scores and classes from (4 + classes + more, N), after non-maximum suppression per class."""
    from torchvision.ops import batched_nms

    scores, classes = prediction[4 : 4 + count].max(0)
    keep = scores >= threshold
    scores, classes = scores[keep], classes[keep]
    centre, size = prediction[:4, keep].T.split(2, dim=1)
    boxes = torch.cat([centre - size / 2, centre + size / 2], dim=1)
    keep = batched_nms(boxes, scores, classes, _SAME_OBJECT_IOU)[:_MOST_OBJECTS]
    return boxes[keep], scores[keep], classes[keep]


def _end_to_end(prediction: Tensor, count: int, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """The same from (N, 6 + more): corners, score, class, already one per object."""
    chosen = prediction[prediction[:, 4] >= threshold]
    return chosen[:, :4], chosen[:, 4], chosen[:, 5].long().clamp(0, count - 1)
