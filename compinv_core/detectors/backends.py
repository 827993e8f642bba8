"""The kinds of detectors: a new one is a module that loads it, and a row here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .detections import Detector
from .detr import load_detr
from .detr_checkpoint import CONFIG_FILE, PROCESSOR_FILE, WEIGHTS_FILE
from .yolo import load_yolo

OWN_FOLDER = "compinv/detectors"
"""Below ``models/``; holds detectors of every kind."""


@dataclass(frozen=True)
class Backend:
    """A kind of detectors.

    Parameters
    ----------
    name : str
        As `backend` of the node has it.
    label : str
        As sentences and reports have it.
    load : callable
        ``load(path, name, threshold, scratch)``: its file or folder, its name for reports, the least score, and a
        folder that its library may write into.
    mark : str
        Pattern of the file that shows one: the detector itself, or what stands in its folder.
    in_folder : bool
        Whether a detector is the folder of that file.
    choose : str
        What to do where the path is no such thing, for sentences.
    miniature : str
        The one of the miniature world, below its weights.
    folders : tuple of str
        Kinds of model folders of the host beside `OWN_FOLDER`; the first is where to put a new one.
    hub_models : tuple of str
        Downloaded from the Hugging Face hub when they are first used.
    hub_files : tuple of str
        What is downloaded of them.
    """

    name: str
    label: str
    load: Callable[[Path, str, float, Path], Detector]
    mark: str
    in_folder: bool
    choose: str
    miniature: str
    folders: tuple[str, ...] = ()
    hub_models: tuple[str, ...] = ()
    hub_files: tuple[str, ...] = ()

    @property
    def home(self) -> str:
        """Where to put a new one, below ``models/``."""
        return self.folders[0] if self.folders else OWN_FOLDER

    def is_at(self, path: Path) -> bool:
        """Tell whether a path looks like a detector of this kind."""
        marked = path / self.mark if self.in_folder else path
        return marked.match(self.mark) and marked.is_file()


DETR = Backend(
    name="detr",
    label="DETR",
    load=lambda path, name, threshold, scratch: load_detr(path, name, threshold),
    mark=CONFIG_FILE,
    in_folder=True,
    choose=f"choose the folder with its {CONFIG_FILE}",
    miniature="detector-detr",
    hub_models=("facebook/detr-resnet-50", "facebook/detr-resnet-101"),
    hub_files=(CONFIG_FILE, PROCESSOR_FILE, WEIGHTS_FILE),
)
YOLO = Backend(
    name="yolo",
    label="YOLO",
    load=load_yolo,
    mark="*.pt",
    in_folder=False,
    choose="choose the .pt file in it",
    miniature="detector-yolo.pt",
    # The last two are what other packs register for detectors by ultralytics.
    folders=("ultralytics", "ultralytics_bbox", "ultralytics_segm"),
)

BACKENDS = {backend.name: backend for backend in (DETR, YOLO)}
HUB_MODELS = {model: backend for backend in BACKENDS.values() for model in backend.hub_models}
