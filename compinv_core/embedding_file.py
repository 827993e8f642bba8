"""Textual-inversion files: our own in a form that ComfyUI, diffusers and A1111 read, and other people's.

Our file holds exactly one tensor, key ``<NAME>``, float32 (k, 768); everything else is safetensors metadata.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from . import logger
from .anchors import EMBEDDING_WIDTH, SEQUENCE_LENGTH
from .atomic_file import replacing
from .concept import Concept
from .errors import UserError

MAKER_KEY = "compinv_version"

# The start and end tokens take two of the 77 positions.
_MOST_VECTORS = SEQUENCE_LENGTH - 2
# 75 float32 vectors take 230 kB; training state that some trainers store beside them is a few MB.
_LARGEST_FILE_BYTES = 64_000_000
_TORCH_SUFFIXES = (".pt", ".bin")


def write_concept(concept: Concept, path: Path) -> None:
    """Write a concept as an embedding file, through a temporary file that is renamed.

    Parameters
    ----------
    concept : Concept
    path : Path
        Ends in ``.safetensors``; parent folders are made.

    Raises
    ------
    UserError
        When `path` holds an embedding that this pack did not make: it is never overwritten.
    """
    check_replaceable(path)
    metadata = {**concept.metadata, "name": concept.name, "superclass": concept.superclass}
    with replacing(path) as temporary:
        save_file({f"<{concept.name}>": concept.vectors.detach().float().cpu().contiguous()}, temporary, metadata)


def check_replaceable(path: Path, method: str = "") -> None:
    """Refuse to overwrite an embedding file that this pack did not make; warn of one that goes with another model.

    Parameters
    ----------
    path : Path
        May not exist.
    method : str
        By which the new embedding is learned; empty warns of nothing.

    Raises
    ------
    UserError
    """
    for other in path.parent.rglob(f"{path.stem}.*"):
        if other != path and other.suffix in (path.suffix, *_TORCH_SUFFIXES):
            raise UserError(
                f"There is another embedding of the name {path.stem!r}, {other.relative_to(path.parent).as_posix()}, "
                "and ComfyUI would take either; choose another name, or move that file away."
            )
    if not path.exists():
        return
    metadata = _safetensors_metadata(path)
    earlier = metadata.get("method", method)
    if not earlier.startswith(method):
        logger.warning(
            "%s was learned by %s and will be replaced by one of %s; a LoRA or checkpoint of the earlier training no "
            "longer fits the word then.", path.name, earlier, method,
        )  # fmt: skip
    if MAKER_KEY not in metadata:
        raise UserError(
            f"{path.name} already exists among your embeddings and was not made by CompInv; "
            "choose another name, or move that file away."
        )


def read_concept(path: Path, width: int = EMBEDDING_WIDTH) -> Concept:
    """Read an embedding file, ours or another tool's.

    Known forms: ``.safetensors``; ``.pt`` and ``.bin``, unpickled as plain tensors only; inside, a bare tensor, a
    dictionary with one tensor, with ``string_to_param`` (A1111) or with ``clip_l`` (the SD1 part of an SDXL file).

    Parameters
    ----------
    path : Path
    width : int, default 768
        Width of the text encoder's embeddings.

    Returns
    -------
    Concept
        Named after the file; `superclass` is empty unless we made the file.

    Raises
    ------
    UserError
        When the file is missing, broken, too large, of another width, or holds NaN or infinity.
    """
    if not path.is_file():
        raise UserError(f"The embedding file {path.name!r} does not exist; choose one from models/embeddings.")
    if path.stat().st_size > _LARGEST_FILE_BYTES:
        raise UserError(
            f"{path.name} is {path.stat().st_size / 1e6:.0f} MB, too large for an embedding; "
            "choose a textual-inversion file, not a checkpoint or LoRA."
        )
    if path.suffix.lower() in _TORCH_SUFFIXES:
        content, metadata = _load_pickled_tensors(path), {}
    else:
        content, metadata = _load_safetensors(path)
    vectors = _checked_vectors(_embedding_tensor(content, path), path, width)
    return Concept(path.stem, metadata.get("superclass", ""), vectors, metadata)


def anchors_to_text(weights: Mapping[str, float]) -> str:
    """Serialise active anchors and their weights for the file's metadata.

    Parameters
    ----------
    weights : mapping of str to float

    Returns
    -------
    str
        JSON object, four decimals.
    """
    return json.dumps({word: round(float(weight), 4) for word, weight in weights.items()}, ensure_ascii=False)


def _load_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path.name} is not a readable safetensors file ({error}); download it again.") from error


def _safetensors_metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        # Not readable means not ours, which is all that the caller asks.
        return {}


def _load_pickled_tensors(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path.name} cannot be read as plain tensors, so it is broken or could run code; "
            "use a .safetensors version of this embedding."
        ) from error


def _embedding_tensor(content: Any, path: Path) -> torch.Tensor:
    """Find the one embedding tensor in what a file held."""
    if isinstance(content, Mapping):
        if isinstance(content.get("string_to_param"), Mapping):
            content = content["string_to_param"]
        if isinstance(content.get("clip_l"), torch.Tensor):
            return content["clip_l"]
        tensors = [value for value in content.values() if isinstance(value, torch.Tensor)]
    else:
        tensors = [content] if isinstance(content, torch.Tensor) else []
    if len(tensors) != 1:
        raise UserError(
            f"{path.name} holds {len(tensors)} tensors where an embedding holds one; choose a textual-inversion file."
        )
    return tensors[0]


def _checked_vectors(tensor: torch.Tensor, path: Path, width: int) -> torch.Tensor:
    if not tensor.is_floating_point() or tensor.ndim not in (1, 2) or tensor.numel() == 0:
        raise UserError(
            f"{path.name} holds a {tensor.dtype} tensor of shape {tuple(tensor.shape)}; "
            f"an embedding is (vectors, {width}) floating point."
        )
    vectors = tensor.detach().float().reshape(-1, tensor.shape[-1]).clone()
    if vectors.shape[1] != width:
        raise UserError(
            f"{path.name} is {vectors.shape[1]} wide, made for another text encoder; "
            f"choose an embedding for Stable Diffusion 1 ({width} wide)."
        )
    if vectors.shape[0] > _MOST_VECTORS:
        raise UserError(f"{path.name} has {vectors.shape[0]} vectors; a prompt has room for {_MOST_VECTORS}.")
    if not torch.isfinite(vectors).all():
        raise UserError(f"{path.name} holds NaN or infinity; its training went wrong, use another file.")
    return vectors
