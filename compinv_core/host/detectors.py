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
from .detector_files import HUB_MODELS, detector_path, fetch_detector

DETR, YOLO = "detr", "yolo"
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
            raise UserError("A picture in `image` of Detect holds NaN or infinity; check the node that made it.")
        comfy.model_management.load_models_gpu([self._patcher], force_full_load=True)
        found: list[tuple[Detection, ...]] = []
        for batch in images[..., :3].float().clamp(0, 1).split(_BATCH):
            comfy.model_management.throw_exception_if_processing_interrupted()
            found += self.detector.detect(batch)
        return found


def load_detector(backend: str, name: str, threshold: float) -> ManagedDetector:
    """Load a detector from the host's model folders; one of `HUB_MODELS` is downloaded if need be.

    Parameters
    ----------
    backend : str
        ``detr`` or ``yolo``.
    name : str
        As `detector_files.detector_path` takes it.
    threshold : float
        Least score of a detection, in [0, 1].

    Returns
    -------
    ManagedDetector

    Raises
    ------
    UserError
        When the detector is missing, broken, or of another kind.
    """
    _check_backend(backend, name)
    path = fetch_detector(name) if name in HUB_MODELS else detector_path(name)
    if not path.exists():
        raise UserError(
            f"The detector {name!r} does not exist below models/; choose one that is there, or put it into "
            f"{'models/compinv/detectors' if backend == DETR else 'models/ultralytics'}."
        )
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


def _check_backend(backend: str, name: str) -> None:
    hub = name in HUB_MODELS
    file = hub is False and detector_path(name).is_file()
    if backend == YOLO and (hub or (not file and (detector_path(name) / CONFIG_FILE).is_file())):
        raise UserError(f"{name} is a DETR; set `backend` to {DETR}, or choose a YOLO file (.pt).")
    if backend == DETR and file:
        raise UserError(f"{name} is a file, and a DETR is a folder; set `backend` to {YOLO}, or choose a DETR.")


def _load(backend: str, name: str, path: Path, threshold: float) -> DetrDetector | YoloDetector:
    if backend == DETR:
        return load_detr(path, f"DETR {name}", threshold)
    settings = Path(folder_paths.get_temp_directory()) / "compinv" / "ultralytics"
    return load_yolo(path, f"YOLO {name}", threshold, settings)
