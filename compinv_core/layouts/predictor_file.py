"""Layout predictors on disk: weights in a safetensors file, everything else in its metadata."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ..basics.errors import UserError, quoted
from ..basics.tensor_file import read_metadata, read_tensors, write_tensors
from .predictor import FEATURES, AnyPredictor, LayoutPredictor, PairNetwork

_FORMAT = "compinv-layout-predictor-1"
_FORMAT_KEY = "compinv_format"
_LARGEST_FILE_BYTES = 100_000_000


def write_predictor(predictor: AnyPredictor, path: Path) -> None:
    """Write a predictor, ``.safetensors``; `SideBySide`, which has nothing to write, is refused.

    Raises
    ------
    UserError
        When `path` holds another kind of file: it is never overwritten.
    """
    if not isinstance(predictor, LayoutPredictor):
        raise UserError(
            f"{predictor.name} has learned nothing that could be saved; connect `predictor` to Train Layout Predictor."
        )
    if path.exists() and _FORMAT_KEY not in read_metadata(path):
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
    write_tensors(path, {name: value.float() for name, value in predictor.network.state_dict().items()}, metadata)


def read_predictor(path: Path) -> LayoutPredictor:
    """Read a predictor, named after its file.

    Raises
    ------
    UserError
        When the file is missing, broken, or something else.
    """
    if not path.is_file():
        raise UserError(f"The layout predictor {quoted(path.name)} does not exist; put it into models/compinv/layout.")
    file = read_tensors(
        path,
        "a layout predictor",
        "choose a file that Save Layout Predictor wrote",
        _LARGEST_FILE_BYTES,
        (_FORMAT_KEY, _FORMAT),
    )
    metadata = file.metadata
    try:
        hidden, width = file.tensors["own.weight"].shape
        # Nothing is allocated for shapes that the file only claims.
        with torch.device("meta"):
            network = PairNetwork(width, hidden)
        network.load_state_dict({name: value.float() for name, value in file.tensors.items()}, assign=True)
        vocabulary = json.loads(metadata["vocabulary"])
        features, template, text_encoder = (metadata[key] for key in ("features", "template", "text_encoder"))
    except (KeyError, ValueError, RuntimeError, RecursionError) as error:
        raise UserError(f"The layout predictor {path.name} is damaged; write or copy it again.") from error
    if not (_is_vocabulary(vocabulary) and features in FEATURES and template.count("{}") == 2):
        raise UserError(f"The layout predictor {path.name} holds values that make no sense; train it again.")
    network.eval().requires_grad_(False)
    return LayoutPredictor(path.stem, network, tuple(vocabulary), features, template, text_encoder, metadata)


def _is_vocabulary(words: object) -> bool:
    return isinstance(words, list) and all(isinstance(word, str) for word in words) and len(set(words)) > 1
