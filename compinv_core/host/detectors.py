"""Detectors under the host's memory management, stop button and folders."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..detections import Detection
from ..detr import DetrDetector, load_detr
from ..detr_checkpoint import CONFIG_FILE
from ..errors import UserError
from ..yolo import YoloDetector, load_yolo
from .detector_files import (
    DETR,
    HUB_MODELS,
    NO_DETECTOR,
    YOLO,
    YOLO_SUFFIX,
    detector_path,
    fetch_detector,
    miniature_detector_path,
)
from .predictor_choice import MINIATURE_WORLD

# Small enough that the stop button answers soon, large enough to keep a graphics card busy.
_BATCH = 8


@dataclass(frozen=True, eq=False)
class ManagedDetector:
    """A detector whose network the host moves to its device when it is used; a `detections.Detector`.

    Parameters
    ----------
    detector : DetrDetector or YoloDetector
    """

    detector: DetrDetector | YoloDetector
    _patcher: ModelPatcher = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # The plain patcher: weights that the host streams (dynamic VRAM) need its own layers, which these are not. The
        # list is there because the patcher writes attributes that the networks have for other purposes.
        patcher = ModelPatcher(
            torch.nn.ModuleList([self.detector.network]),
            load_device=comfy.model_management.get_torch_device(),
            offload_device=torch.device("cpu"),
        )
        object.__setattr__(self, "_patcher", patcher)

    @property
    def name(self) -> str:
        """Kind and weights, for reports."""
        return self.detector.name

    @property
    def labels(self) -> tuple[str, ...]:
        """Everything that it can find."""
        return self.detector.labels

    @property
    def threshold(self) -> float:
        """Least score of a detection."""
        return self.detector.threshold

    def detect(self, images: Tensor) -> list[tuple[Detection, ...]]:
        """Find objects, as `detections.Detector.detect` says.

        Parameters
        ----------
        images : Tensor (B, H, W, C), float
            In [0, 1]; of the channels the first three count.

        Returns
        -------
        list of tuple of Detection, length B

        Raises
        ------
        UserError
            When a picture holds NaN or infinity.
        """
        if not torch.isfinite(images).all():
            raise UserError(
                "A picture for the detector holds NaN or infinity; check the node, or the checkpoint, that made it."
            )
        comfy.model_management.load_models_gpu([self._patcher], force_full_load=True)
        found: list[tuple[Detection, ...]] = []
        for batch in images[..., :3].float().clamp(0, 1).split(_BATCH):
            comfy.model_management.throw_exception_if_processing_interrupted()
            found += self.detector.detect(batch)
        return found


def load_detector(backend: str, name: str, threshold: float) -> ManagedDetector:
    """Load a detector; one of `HUB_MODELS` is downloaded if need be.

    Parameters
    ----------
    backend : str
        ``detr`` or ``yolo``.
    name : str
        One of `detector_files.detector_names`, or any other path below ``models/``.
    threshold : float
        Least score of a detection, in [0, 1].

    Returns
    -------
    ManagedDetector

    Raises
    ------
    UserError
        When none is chosen, or the detector is missing, broken, or of another kind.
    """
    if name == NO_DETECTOR:
        raise UserError(
            "Load Detector has no detector yet; choose one in `model` (those named facebook are downloaded when they "
            "are first used)."
        )
    path = miniature_detector_path(backend) if name == MINIATURE_WORLD else _own_path(backend, name)
    # Weights made in inference mode could not be used by a node that leaves it.
    with torch.inference_mode(False), torch.no_grad():
        detector = _load(backend, name, path, threshold)
    return ManagedDetector(detector)


def detector_fingerprint(name: str) -> Any:
    """Return what changes when the detector's files do, for the host's cache.

    Parameters
    ----------
    name : str

    Returns
    -------
    list of (str, int, int)
        Name, size and time of each file; empty where there is none.
    """
    try:
        path = detector_path(name)
    except UserError:
        return []
    files = sorted(path.glob("*")) if path.is_dir() else [path]
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]


def _own_path(backend: str, name: str) -> Path:
    """File or folder of a detector of the person's, or of one of `HUB_MODELS`; refuses those of another kind."""
    if name in HUB_MODELS and backend == DETR:
        return fetch_detector(name)
    path = detector_path(name)
    if backend == YOLO and (name in HUB_MODELS or (path / CONFIG_FILE).is_file()):
        raise UserError(f"{name} is a DETR; set `backend` to {DETR}, or choose a YOLO file (.pt).")
    if backend == YOLO and path.is_dir():
        raise UserError(f"{name} is a folder, and a YOLO is a file; choose the .pt file in it.")
    if backend == DETR and path.is_file():
        cure = f"set `backend` to {YOLO}" if path.suffix == YOLO_SUFFIX else "choose the folder with its config.json"
        raise UserError(f"{name} is a file, and a DETR is a folder; {cure}, or choose another detector.")
    if not path.exists():
        raise UserError(
            f"The detector {name!r} does not exist below models/; choose one that is there, or put it into "
            f"{'models/compinv/detectors' if backend == DETR else 'models/ultralytics'}."
        )
    return path


def _load(backend: str, name: str, path: Path, threshold: float) -> DetrDetector | YoloDetector:
    if backend == DETR:
        return load_detr(path, f"DETR {name}", threshold)
    settings = Path(folder_paths.get_temp_directory()) / "compinv" / "ultralytics"
    return load_yolo(path, f"YOLO {name}", threshold, settings)
