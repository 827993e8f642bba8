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

from ...basics.content import ByContent
from ...basics.errors import UserError, quoted
from ...detectors.backends import BACKENDS, HUB_MODELS, Backend
from ...detectors.detections import Detection
from ..folders import MINIATURE_WORLD
from ..hub import fetch
from ..managed import managed_by_host
from .files import NO_DETECTOR, detector_path, miniature_detector_path

# Small enough that the stop button answers soon, large enough to keep a graphics card busy.
_BATCH = 8


@dataclass(frozen=True, eq=False)
class ManagedDetector(ByContent):
    """A detector whose network the host moves to its device when it is used; a `detections.Detector`.

    Parameters
    ----------
    detector : Detector
        With a `network`.
    """

    detector: Any
    _patcher: ModelPatcher = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_patcher", managed_by_host(self.detector.network))

    def __reduce__(self) -> tuple[type[ManagedDetector], tuple[Any]]:
        # The patcher belongs to this process.
        return type(self), (self.detector,)

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
        if images.ndim != 4 or 0 in images.shape or images.shape[-1] < 3:
            raise UserError(
                f"The detector got pictures of the shape {tuple(images.shape)}; connect an IMAGE of one picture or "
                "more, in colours."
            )
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
        One of `BACKENDS`.
    name : str
        One of `files.detector_names`, or any other path below ``models/``.
    threshold : float
        Least score of a detection, in [0, 1].

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
    kind = BACKENDS.get(backend)
    if kind is None:
        raise UserError(f"`backend` is {quoted(backend)}; choose one of {', '.join(BACKENDS)}.")
    path = miniature_detector_path(kind) if name == MINIATURE_WORLD else _own_path(kind, name)
    scratch = Path(folder_paths.get_temp_directory()) / "compinv" / backend
    # Weights made in inference mode could not be used by a node that leaves it.
    with torch.inference_mode(False), torch.no_grad():
        return ManagedDetector(kind.load(path, f"{kind.label} {name}", threshold, scratch))


def _own_path(backend: Backend, name: str) -> Path:
    """File or folder of a detector of the person's, or of one of `HUB_MODELS`; refuses those of another kind."""
    path = detector_path(name)
    others = (each for each in BACKENDS.values() if each is not backend)
    other = next((each for each in others if HUB_MODELS.get(name) is each or each.is_at(path)), None)
    if other:
        raise UserError(
            f"{name} is a {other.label}; set `backend` to {other.name}, or choose another detector in `model`."
        )
    if name in HUB_MODELS:
        return fetch(name, HUB_MODELS[name].hub_files, path)
    if not path.exists():
        raise UserError(
            f"The detector {quoted(name)} does not exist below models/; choose one that is there, or put it into "
            f"models/{backend.home}."
        )
    if path.is_dir() != backend.in_folder:
        is_, should = ("folder", "file") if path.is_dir() else ("file", "folder")
        raise UserError(f"{name} is a {is_}, and a {backend.label} is a {should}; {backend.choose}.")
    return path
