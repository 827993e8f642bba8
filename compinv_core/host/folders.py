"""Where the host keeps what this pack reads and writes."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..errors import UserError

MINIATURE_WEIGHTS = Path(__file__).resolve().parents[2] / "miniworld" / "weights"
"""What comes with the pack for the miniature world; may not exist."""

_ANCHOR_SUFFIX = ".txt"
# Names of many concepts joined are cut; the run itself tells them apart.
_LONGEST_FILE_NAME = 200


def embedding_path(name: str) -> Path:
    """Return the file of a concept among the host's embeddings.

    Parameters
    ----------
    name : str
        Checked by `compinv_core.concept.check_name`.

    Returns
    -------
    Path
        ``models/embeddings/NAME.safetensors``, in the first embeddings folder; may not exist.
    """
    return embedding_folder() / f"{name}.safetensors"


def embedding_folder() -> Path:
    """Return the first of the host's folders of embeddings.

    Returns
    -------
    Path
    """
    return Path(folder_paths.get_folder_paths("embeddings")[0])


def lora_path(name: str) -> Path:
    """Return the file of a trained difference among the host's LoRAs.

    Parameters
    ----------
    name : str
        A name checked by `compinv_core.concept.check_name`, or several joined by ``+``.

    Returns
    -------
    Path
        ``models/loras/NAME.safetensors``, in the first folder of LoRAs; may not exist.
    """
    return Path(folder_paths.get_folder_paths("loras")[0]) / f"{name[:_LONGEST_FILE_NAME]}.safetensors"


def run_folder(name: str, method: str = "") -> Path:
    """Return the folder of a training's state, ``output/compinv/runs/NAME`` or ``NAME.METHOD``.

    Parameters
    ----------
    name : str
        A name checked by `compinv_core.concept.check_name`, or several joined by ``+``.
    method : str
        Of the training; textual inversion has none.

    Returns
    -------
    Path
    """
    suffix = f".{method.lower().replace(' ', '-')}" if method else ""
    runs = Path(folder_paths.get_output_directory()) / "compinv" / "runs"
    return runs / f"{name[:_LONGEST_FILE_NAME]}{suffix}"


def report_folder() -> Path:
    """Return the folder of written reports, ``output/compinv/reports``.

    Returns
    -------
    Path
        May not exist.
    """
    return Path(folder_paths.get_output_directory()) / "compinv" / "reports"


def layout_dataset_folder(name: str) -> Path:
    """Return the folder of a layout data set, ``output/compinv/layouts/NAME``.

    Parameters
    ----------
    name : str
        Checked by `compinv_core.concept.check_name`.

    Returns
    -------
    Path
    """
    return Path(folder_paths.get_output_directory()) / "compinv" / "layouts" / name


def anchor_lists() -> list[str]:
    """Return the names of the person's own anchor lists in ``models/compinv/anchors``, without ``.txt``.

    Returns
    -------
    list of str
        Sorted; empty where the folder does not exist.
    """
    folder = _anchor_folder()
    if not folder.is_dir():
        return []
    return sorted(path.stem for path in folder.iterdir() if path.suffix == _ANCHOR_SUFFIX and path.is_file())


def anchor_list_path(name: str) -> Path:
    """Return the file of one of `anchor_lists`.

    Parameters
    ----------
    name : str

    Returns
    -------
    Path

    Raises
    ------
    UserError
        When there is no such list in the folder.
    """
    if name not in anchor_lists():
        raise UserError(f"There is no anchor list {name!r}; put {name}.txt into models/compinv/anchors.")
    return _anchor_folder() / f"{name}{_ANCHOR_SUFFIX}"


def _anchor_folder() -> Path:
    return Path(folder_paths.models_dir) / "compinv" / "anchors"


def layout_predictors() -> list[str]:
    """Return the names of the person's layout predictors in ``models/compinv/layout``, without ``.safetensors``.

    Returns
    -------
    list of str
        Sorted; empty where the folder does not exist.
    """
    folder = _predictor_folder()
    if not folder.is_dir():
        return []
    return sorted(path.stem for path in folder.iterdir() if path.suffix == ".safetensors" and path.is_file())


def layout_predictor_path(name: str) -> Path:
    """Return the file of a layout predictor, ``models/compinv/layout/NAME.safetensors``.

    Parameters
    ----------
    name : str
        One of `layout_predictors`, or checked by `compinv_core.concept.check_name`.

    Returns
    -------
    Path
        May not exist.
    """
    return _predictor_folder() / f"{name}.safetensors"


def miniature_predictor_path() -> Path:
    """Return the file of the layout predictor that comes with the miniature world.

    Returns
    -------
    Path
        May not exist.
    """
    return MINIATURE_WEIGHTS / "layout-predictor.safetensors"


def _predictor_folder() -> Path:
    return Path(folder_paths.models_dir) / "compinv" / "layout"
