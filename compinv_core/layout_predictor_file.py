"""Layout predictors on disk: weights in a safetensors file, everything else in its metadata."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .atomic_file import replacing
from .errors import UserError
from .layout_predictor import FEATURES, AnyPredictor, LayoutPredictor, PairNetwork

_FORMAT = "compinv-layout-predictor-1"
_FORMAT_KEY = "compinv_format"
_LARGEST_FILE_BYTES = 100_000_000


def write_predictor(predictor: AnyPredictor, path: Path) -> None:
    """Write a predictor, through a temporary file that is renamed.

    Parameters
    ----------
    predictor : LayoutPredictor
        `SideBySide`, which has nothing to write, is refused.
    path : Path
        Ends in ``.safetensors``; its folder is made.

    Raises
    ------
    UserError
        When `path` holds another kind of file: it is never overwritten.
    """
    if not isinstance(predictor, LayoutPredictor):
        raise UserError(
            f"{predictor.name} has learned nothing that could be saved; connect `predictor` to Train Layout Predictor."
        )
    if path.exists() and _FORMAT_KEY not in _metadata(path):
        raise UserError(
            f"{path.name} already exists and is no layout predictor; choose another `filename`, or move that file away."
        )
    metadata = {
        **predictor.metadata,
        _FORMAT_KEY: _FORMAT,
        "vocabulary": json.dumps(predictor.vocabulary, ensure_ascii=False),
        "features": predictor.features,
        "template": predictor.template,
        "text_encoder": predictor.text_encoder,
        "text_encoder_width": str(predictor.width),
    }
    weights = {
        name: value.detach().float().cpu().contiguous() for name, value in predictor.network.state_dict().items()
    }
    with replacing(path) as temporary:
        save_file(weights, temporary, metadata)


def read_predictor(path: Path) -> LayoutPredictor:
    """Read a predictor.

    Parameters
    ----------
    path : Path

    Returns
    -------
    LayoutPredictor
        Named after the file.

    Raises
    ------
    UserError
        When the file is missing, broken, or something else.
    """
    if not path.is_file():
        raise UserError(f"The layout predictor {path.name!r} does not exist; put it into models/compinv/layout.")
    if path.stat().st_size > _LARGEST_FILE_BYTES:
        raise UserError(f"{path.name} is over 100 MB and so is no layout predictor; choose another file.")
    metadata = _metadata(path)
    if metadata.get(_FORMAT_KEY) != _FORMAT:
        raise UserError(
            f"{path.name} is not a layout predictor of this pack; choose a file that Save Layout Predictor wrote."
        )
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no dict)
        hidden, width = weights["own.weight"].shape
        network = PairNetwork(width, hidden)
        network.load_state_dict(weights)
        vocabulary = json.loads(metadata["vocabulary"])
        features, template, text_encoder = (metadata[key] for key in ("features", "template", "text_encoder"))
    except (KeyError, ValueError, RuntimeError, SafetensorError, OSError) as error:
        raise UserError(f"The layout predictor {path.name} is damaged; write or copy it again.") from error
    sound = all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
    if not (sound and _is_vocabulary(vocabulary) and features in FEATURES and template.count("{}") == 2):
        raise UserError(f"The layout predictor {path.name} holds values that make no sense; train it again.")
    network.eval().requires_grad_(False)
    return LayoutPredictor(path.stem, network, tuple(vocabulary), features, template, text_encoder, metadata)


def _is_vocabulary(words: object) -> bool:
    return isinstance(words, list) and all(isinstance(word, str) for word in words) and len(set(words)) > 1


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        # Not readable means not ours, and the caller says so.
        return {}
