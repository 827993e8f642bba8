"""The detectors that a person can choose: their own files, those that come with the pack, and those of the hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import folder_paths

from ...basics.errors import UserError, quoted
from ...detectors.backends import BACKENDS, HUB_MODELS, OWN_FOLDER, Backend
from ..folders import MINIATURE_WEIGHTS, MINIATURE_WORLD

NO_DETECTOR = "choose a detector"
"""What a fresh node is set to, so that nothing is downloaded unasked."""


def detector_names() -> list[str]:
    """Return what can be chosen.

    Returns
    -------
    list of str
        `NO_DETECTOR`; then paths below ``models/``, with forward slashes, and of folders that the person's settings or
        other packs have added, with the kind of folder as their first part; then those of the miniature world, where
        the pack has them, and `HUB_MODELS`. Links are followed.
    """
    downloaded = {_hub_folder(name) for name in HUB_MODELS}
    found: set[str] = set()
    known: set[Path] = set()
    for prefix, folder, backends in _places():
        paths = [path for path in _detectors_below(folder, backends) if path not in downloaded]
        # The same folder may be registered under several names.
        found |= {f"{prefix}/{path.relative_to(folder).as_posix()}" for path in paths if path.resolve() not in known}
        known |= {path.resolve() for path in paths}
    bundled = all(miniature_detector_path(backend).exists() for backend in BACKENDS.values())
    return [NO_DETECTOR, *sorted(found), *([MINIATURE_WORLD] if bundled else []), *HUB_MODELS]


def miniature_detector_path(backend: Backend) -> Path:
    """Return the file or folder of a detector that comes with the miniature world; may not exist."""
    return MINIATURE_WEIGHTS / backend.miniature


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
    if name in HUB_MODELS:
        return _hub_folder(name)
    parts = PurePosixPath(name.strip().replace("\\", "/")).parts
    if not parts or ".." in parts or parts[0].startswith("/") or ":" in parts[0]:
        raise UserError(
            f"The detector {quoted(name)} is not a path below models/; write one such as ultralytics/bbox/mine.pt."
        )
    places = [folder.joinpath(*parts[1:]) for prefix, folder, _ in _places() if prefix == parts[0]]
    places.append(_models(*parts))
    return next((place for place in places if place.exists()), places[0])


def detector_fingerprint(name: str) -> Any:
    """Return what changes when the detector's files do, for the host's cache.

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


def _places() -> Iterator[tuple[str, Path, list[Backend]]]:
    """First part of the name, folder, and the kinds of detectors in it."""
    yield OWN_FOLDER, _models(OWN_FOLDER), list(BACKENDS.values())
    for backend in BACKENDS.values():
        for kind in backend.folders:
            registered = folder_paths.folder_names_and_paths.get(kind, ([], set()))[0]
            own = [str(_models(kind))] if kind == backend.home else []
            for folder in dict.fromkeys([*own, *registered]):
                yield kind, Path(folder), [backend]


def _detectors_below(top: Path, backends: list[Backend]) -> Iterator[Path]:
    """Detectors in a folder and its subfolders, each folder once: links may lead back."""
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        for backend in backends:
            for path in map(Path(folder).joinpath, sorted(files)):
                if path.match(backend.mark) and path.is_file():
                    yield path.parent if backend.in_folder else path


def _hub_folder(name: str) -> Path:
    return _models(OWN_FOLDER, name.replace("/", "--"))


def _models(*parts: str) -> Path:
    return Path(folder_paths.models_dir).joinpath(*parts)
