"""Where the host keeps what this pack reads and writes. Names were checked by `basics.names.check_name`."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..basics.errors import UserError, quoted

MINIATURE_WEIGHTS = Path(__file__).resolve().parents[2] / "miniworld" / "weights"
"""What comes with the pack for the miniature world; may not exist."""

MINIATURE_WORLD = "miniature world"
"""What a person chooses to get it."""

SHOWN = "compinv"
"""The host's subfolder of `shown_folder`."""

_ANCHOR_SUFFIX, _PREDICTOR_SUFFIX = ".txt", ".safetensors"
# Names of many concepts joined are cut; the run itself tells them apart.
_LONGEST_FILE_NAME = 200


def embedding_path(name: str) -> Path:
    """Return the file of a concept, ``models/embeddings/NAME.safetensors``; may not exist."""
    return embedding_folder() / f"{name}.safetensors"


def embedding_folder() -> Path:
    """Return the first of the host's folders of embeddings."""
    return Path(folder_paths.get_folder_paths("embeddings")[0])


def lora_path(name: str) -> Path:
    """Return the file of a trained difference, ``models/loras/NAME.safetensors``; `name` may be several joined by +."""
    return Path(folder_paths.get_folder_paths("loras")[0]) / f"{name[:_LONGEST_FILE_NAME]}.safetensors"


def run_folder(name: str, suffix: str = "") -> Path:
    """Return the folder of a training's state, ``output/compinv/runs/NAME`` with the method's suffix."""
    return _output_folder() / "runs" / f"{name[:_LONGEST_FILE_NAME]}{suffix}"


def report_folder() -> Path:
    """Return the folder of written reports, ``output/compinv/reports``."""
    return _output_folder() / "reports"


def shown_folder() -> Path:
    """Return the folder of what is only shown, ``temp/compinv``; the host empties it when it starts."""
    return Path(folder_paths.get_temp_directory()) / SHOWN


def layout_dataset_folder(name: str) -> Path:
    """Return the folder of a layout data set, ``output/compinv/layouts/NAME``."""
    return _output_folder() / "layouts" / name


def anchor_lists() -> list[str]:
    """Return the names of the person's own anchor lists in ``models/compinv/anchors``, sorted, without ``.txt``."""
    return _names(_model_folder("anchors"), _ANCHOR_SUFFIX)


def anchor_list_path(name: str) -> Path:
    """Return the file of one of `anchor_lists`.

    Raises
    ------
    UserError
        When there is no such list in the folder.
    """
    if name not in anchor_lists():
        raise UserError(f"There is no anchor list {quoted(name)}; put {name}.txt into models/compinv/anchors.")
    return _model_folder("anchors") / f"{name}{_ANCHOR_SUFFIX}"


def layout_predictors() -> list[str]:
    """Return the names of the person's layout predictors in ``models/compinv/layout``, sorted, without suffix."""
    return _names(_model_folder("layout"), _PREDICTOR_SUFFIX)


def layout_predictor_path(name: str) -> Path:
    """Return the file of a layout predictor, ``models/compinv/layout/NAME.safetensors``; may not exist."""
    return _model_folder("layout") / f"{name}{_PREDICTOR_SUFFIX}"


def miniature_predictor_path() -> Path:
    """Return the file of the layout predictor that comes with the miniature world; may not exist."""
    return MINIATURE_WEIGHTS / "layout-predictor.safetensors"


def _names(folder: Path, suffix: str) -> list[str]:
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.stem for path in files if path.suffix == suffix and path.is_file())


def _model_folder(kind: str) -> Path:
    return Path(folder_paths.models_dir) / "compinv" / kind


def _output_folder() -> Path:
    return Path(folder_paths.get_output_directory()) / "compinv"
