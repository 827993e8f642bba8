"""The detectors that a person can choose: their own files, two that come with the pack, and two to be downloaded."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import comfy.model_management
import comfy.utils
import folder_paths

from ..atomic_file import replacing
from ..detr_checkpoint import CONFIG_FILE, PROCESSOR_FILE, WEIGHTS_FILE
from ..errors import UserError
from .folders import MINIATURE_WEIGHTS
from .predictor_choice import MINIATURE_WORLD

DETR, YOLO = "detr", "yolo"
NO_DETECTOR = "choose a detector"
"""What a fresh node is set to, so that nothing is downloaded unasked."""

HUB_MODELS = ("facebook/detr-resnet-50", "facebook/detr-resnet-101")
"""Downloaded from the Hugging Face hub when they are first used."""

_OWN_FOLDER = "compinv/detectors"
_YOLO_FOLDER = "ultralytics"
YOLO_SUFFIX = ".pt"
_MINIATURE = {DETR: "detector-detr", YOLO: "detector-yolo.pt"}
_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 30


def detector_names() -> list[str]:
    """Return what can be chosen.

    Returns
    -------
    list of str
        `NO_DETECTOR`; then paths below ``models/``, with forward slashes: DETR folders in ``compinv/detectors``, YOLO
        files there and in ``ultralytics``; then those of the miniature world, where the pack has them, and
        `HUB_MODELS`.
    """
    own = Path(folder_paths.models_dir) / _OWN_FOLDER
    found = {f"{_OWN_FOLDER}/{path.parent.relative_to(own).as_posix()}" for path in own.rglob(CONFIG_FILE)}
    downloaded = {f"{_OWN_FOLDER}/{_hub_folder_name(name)}" for name in HUB_MODELS}
    for prefix, folder in [(_OWN_FOLDER, own), *((_YOLO_FOLDER, folder) for folder in _yolo_folders())]:
        found |= {f"{prefix}/{path.relative_to(folder).as_posix()}" for path in folder.rglob(f"*{YOLO_SUFFIX}")}
    bundled = [MINIATURE_WORLD] if all(miniature_detector_path(backend).exists() for backend in _MINIATURE) else []
    return [NO_DETECTOR, *sorted(found - downloaded), *bundled, *HUB_MODELS]


def miniature_detector_path(backend: str) -> Path:
    """Return the file or folder of a detector that comes with the miniature world.

    Parameters
    ----------
    backend : str
        ``detr`` or ``yolo``.

    Returns
    -------
    Path
        May not exist.
    """
    return MINIATURE_WEIGHTS / _MINIATURE[backend]


def detector_path(name: str) -> Path:
    """Return the file or folder of a detector, without downloading anything.

    Parameters
    ----------
    name : str
        One of `detector_names`, or any other path below ``models/``.

    Returns
    -------
    Path
        May not exist.

    Raises
    ------
    UserError
        When the name leaves ``models/``.
    """
    models = Path(folder_paths.models_dir)
    if name in HUB_MODELS:
        return models / _OWN_FOLDER / _hub_folder_name(name)
    parts = PurePosixPath(name.strip().replace("\\", "/")).parts
    if not parts or ".." in parts or parts[0].startswith("/") or ":" in parts[0]:
        raise UserError(
            f"The detector {name!r} is not a path below models/; write one such as ultralytics/bbox/mine.pt."
        )
    if parts[0] == _YOLO_FOLDER:
        places = [folder.joinpath(*parts[1:]) for folder in _yolo_folders()]
        return next((place for place in places if place.exists()), places[0])
    return models.joinpath(*parts)


def fetch_detector(name: str) -> Path:
    """Return the folder of one of `HUB_MODELS`; download it (about 170 or 240 MB) where it is not there yet.

    The progress bar follows the download and the stop button ends it. What was half downloaded is thrown away.

    Parameters
    ----------
    name : str

    Returns
    -------
    Path

    Raises
    ------
    UserError
        When the download fails, or the person has forbidden downloads (``HF_HUB_OFFLINE``).
    """
    folder = detector_path(name)
    missing = [file for file in (CONFIG_FILE, PROCESSOR_FILE, WEIGHTS_FILE) if not (folder / file).is_file()]
    for file in missing:
        _download(name, file, folder / file)
    return folder


def _download(name: str, file: str, destination: Path) -> None:
    try:
        from huggingface_hub import constants, hf_hub_url
    except ImportError as error:
        raise UserError(
            f"Downloading {name} needs the package huggingface_hub ({error}); install it with: "
            "pip install huggingface_hub."
        ) from error
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"{name} is not downloaded yet and HF_HUB_OFFLINE forbids it; unset that variable, or put the folder "
            f"{_hub_folder_name(name)} into models/{_OWN_FOLDER}."
        )
    try:
        with replacing(destination) as temporary, temporary.open("wb") as written:
            for chunk in _chunks(hf_hub_url(name, file)):
                written.write(chunk)
    except (urllib.error.URLError, OSError) as error:
        raise UserError(
            f"{file} of {name} could not be downloaded ({error}); check the connection, or put the folder "
            f"{_hub_folder_name(name)} into models/{_OWN_FOLDER}."
        ) from error


def _chunks(url: str) -> Iterator[bytes]:
    """The content of the address, with progress; ends in an error when less comes than was announced."""
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:
        total = int(answer.headers.get("Content-Length") or 0)
        bar = comfy.utils.ProgressBar(max(total, 1))
        received = 0
        while chunk := answer.read(_CHUNK_BYTES):
            comfy.model_management.throw_exception_if_processing_interrupted()
            received += len(chunk)
            bar.update_absolute(received, max(total, received))
            yield chunk
    if received < total:
        raise OSError(f"only {received} of {total} bytes came")


def _hub_folder_name(name: str) -> str:
    return name.replace("/", "--")


def _yolo_folders() -> list[Path]:
    """Folders for YOLO files: the host's own, and those that another pack or the person's settings have added."""
    known = folder_paths.folder_names_and_paths.get(_YOLO_FOLDER)
    folders = [os.path.join(folder_paths.models_dir, _YOLO_FOLDER), *(known[0] if known else [])]  # noqa: PTH118
    return [Path(folder) for folder in dict.fromkeys(folders)]
