"""Textual-inversion files: our own in a form that ComfyUI, diffusers and A1111 read, and other people's.

Our file of a Stable Diffusion 1 word holds exactly one tensor, key ``<NAME>``, float32 (k, 768). That of another family
has a tensor for each text encoder: ``clip_h`` (k, 1024), or ``clip_l`` (k, 768) and ``clip_g`` (k, 1280). Everything
else is safetensors metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..basics.atomic_file import remove_leftovers
from ..basics.errors import UserError, listed, quoted, remark
from ..basics.tensor_file import plain_tensor, read_metadata, read_pickled, read_tensors, write_tensors
from ..semantic.widths import CLIP_L, Widths, parts_of
from ..words.sentences import TEMPLATES
from .concept import Concept

MAKER_KEY = "compinv_version"

# Start and end take two of the positions of a chunk.
_MOST_VECTORS = 75
# 75 float32 vectors take 230 kB; training state that some trainers store beside them is a few MB.
_LARGEST_FILE_BYTES = 64_000_000
_TORCH_SUFFIXES = (".pt", ".bin")
# How the host knows an embedding that lies in a LoRA's file.
_BUNDLED, _BUNDLED_ALONE = "bundle_emb.", ".string_to_param.*"
_ENCODER_KEYS = ("clip_l", "clip_g", "clip_h")


def write_concept(concept: Concept, path: Path) -> None:
    """Write a learned concept as an embedding file, ``.safetensors``.

    Raises
    ------
    UserError
        When nothing was learned yet, `path` holds an embedding that this pack did not make, which is never overwritten,
        or it cannot be written.
    """
    if concept.vectors is None:
        raise UserError(f"The concept {quoted(concept.name)} has not been learned yet; connect a training node.")
    check_replaceable(path)
    metadata = {**concept.metadata, "name": concept.name, "superclass": concept.superclass}
    vectors = concept.vectors.float()
    tensors = {f"<{concept.name}>": vectors}
    if set(concept.widths) - set(CLIP_L):
        parts = parts_of(vectors, concept.widths)
        tensors = {key: part.contiguous() for key, part in zip(concept.widths, parts, strict=True)}
    write_tensors(path, tensors, metadata)


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
    remove_leftovers(path.parent)
    for other in path.parent.rglob(f"{path.stem}.*"):
        if other != path and other.suffix in (path.suffix, *_TORCH_SUFFIXES):
            raise UserError(
                f"There is another embedding of the name {quoted(path.stem)}, "
                f"{other.relative_to(path.parent).as_posix()}, and ComfyUI would take either; choose another name, or "
                "move that file away."
            )
    if not path.exists():
        return
    metadata = read_metadata(path)
    earlier = metadata.get("method", method)
    if not earlier.startswith(method):
        remark(
            f"{path.name} was learned by {earlier} and will be replaced by one of {method}; a LoRA or checkpoint of "
            "the earlier training no longer fits the word then."
        )
    if MAKER_KEY not in metadata:
        raise UserError(
            f"{path.name} already exists among your embeddings and was not made by CompInv; "
            "choose another name, or move that file away."
        )


def read_concept(path: Path, widths: Widths = CLIP_L) -> Concept:
    """Read an embedding file, ours or another tool's.

    Known forms: ``.safetensors``; ``.pt`` and ``.bin``, unpickled as plain tensors only. Inside, a tensor under the
    text encoder's key (``clip_l``), also in an embedding bundled with a LoRA (``bundle_emb.NAME.clip_l``); for one text
    encoder a bare tensor, a dictionary with one tensor, or with ``string_to_param`` (A1111), too.

    Parameters
    ----------
    widths : Widths
        Of the text encoders' embeddings.

    Returns
    -------
    Concept
        Named after the file; `superclass` is empty unless we made the file.

    Raises
    ------
    UserError
        When the file is missing, broken, too large, of other widths, or holds NaN or infinity.
    """
    if not path.is_file():
        raise UserError(f"The embedding file {quoted(path.name)} does not exist; choose one from models/embeddings.")
    if path.suffix.lower() in _TORCH_SUFFIXES:
        content, metadata = _load_pickled_tensors(path), {}
    else:
        file = read_tensors(path, "an embedding", "choose a textual-inversion file", _LARGEST_FILE_BYTES)
        content, metadata = file.tensors, file.metadata
    parts = [
        _checked_vectors(_embedding_tensor(content, key, len(widths) == 1, path), path, width)
        for key, width in widths.items()
    ]
    if len({len(part) for part in parts}) > 1:
        raise UserError(
            f"{path.name} has {listed([len(part) for part in parts])} vectors in its text encoders, which should be "
            "equally many; choose another file."
        )
    vectors = torch.cat(parts, dim=1)
    superclass = metadata.get("superclass", "")
    return Concept(path.stem, superclass, vectors, metadata, num_vectors=len(vectors), widths=widths)


def trained_sentences(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return what a file of ours says of the sentences that it was trained in; nothing for other files.

    A person's own sentences stand in one text.
    """
    own = metadata.get("templates", "()")
    return TEMPLATES.get(metadata.get("template", ""), ()) if own == "()" else (own,)


def anchors_to_text(weights: Mapping[str, float]) -> str:
    """Return active anchors and their weights as a JSON object with four decimals, for the file's metadata."""
    return json.dumps({word: round(float(weight), 4) for word, weight in weights.items()}, ensure_ascii=False)


def _load_pickled_tensors(path: Path) -> Any:
    if path.stat().st_size > _LARGEST_FILE_BYTES:
        raise UserError(
            f"{path.name} is {path.stat().st_size / 1e6:.0f} MB, too large for an embedding; "
            "choose a textual-inversion file, not a checkpoint or LoRA."
        )
    try:
        return read_pickled(path, _LARGEST_FILE_BYTES)
    except ValueError as error:
        raise UserError(
            f"{path.name} cannot be read as plain tensors, so it is broken or could run code; "
            "use a .safetensors version of this embedding."
        ) from error


def _embedding_tensor(content: Any, key: str, alone: bool, path: Path) -> torch.Tensor:
    """Find the embedding of the text encoder with this key in what a file held; `alone` where there is no other."""
    if isinstance(content, Mapping):
        if isinstance(content.get("string_to_param"), Mapping):
            content = content["string_to_param"]
        if isinstance(content.get(key), torch.Tensor):
            others = [name for name in content if name != key and name in _ENCODER_KEYS]
            if alone and others:
                remark(
                    f"{path.name} was made for a model with more text encoders; only its part for {key} is read, not "
                    f"that for {listed(others)}."
                )
            return content[key]
        for wanted in (f".{key}", *((_BUNDLED_ALONE,) if alone else ())):
            bundled = [value for name, value in content.items() if _is_bundled(name, wanted)]
            if len(bundled) > 1:
                raise UserError(
                    f"{path.name} holds {len(bundled)} embeddings, bundled with a LoRA; choose a file with one."
                )
            if bundled:
                return bundled[0]
        tensors = [value for value in content.values() if isinstance(value, torch.Tensor)]
    else:
        tensors = [content] if isinstance(content, torch.Tensor) else []
    if not alone:
        raise UserError(
            f"{path.name} has no vectors for the text encoder {key}, so it was made for another kind of model; choose "
            "an embedding that was made for this one."
        )
    if len(tensors) != 1:
        raise UserError(
            f"{path.name} holds {len(tensors)} tensors where an embedding holds one; choose a textual-inversion file."
        )
    return tensors[0]


def _is_bundled(name: object, ending: str) -> bool:
    return isinstance(name, str) and name.startswith(_BUNDLED) and name.endswith(ending)


def _checked_vectors(tensor: torch.Tensor, path: Path, width: int) -> torch.Tensor:
    if not plain_tensor(tensor):
        raise UserError(f"{path.name} holds a tensor whose numbers do not stand in the file; use another file.")
    if not tensor.is_floating_point() or tensor.ndim not in (1, 2) or tensor.numel() == 0:
        raise UserError(
            f"{path.name} holds a {tensor.dtype} tensor of shape {tuple(tensor.shape)}; "
            f"an embedding is (vectors, {width}) floating point."
        )
    if tensor.shape[-1] != width:
        raise UserError(
            f"{path.name} is {tensor.shape[-1]} wide, made for another text encoder; "
            f"choose an embedding that is {width} wide."
        )
    if tensor.ndim == 2 and tensor.shape[0] > _MOST_VECTORS:
        raise UserError(f"{path.name} has {tensor.shape[0]} vectors; a prompt has room for {_MOST_VECTORS}.")
    vectors = tensor.detach().float().reshape(-1, width).clone()
    if not torch.isfinite(vectors).all():
        raise UserError(f"{path.name} holds NaN or infinity; its training went wrong, use another file.")
    return vectors
