"""Tensors in files: one writer, which turns equal contents into equal bytes, one reader, and one for PyTorch's files.

The library's own writer puts the metadata in an order of chance, and leaves temporary files of its own naming when it
is killed; so the few lines that the format takes are written here. Reading is the library's.
"""

from __future__ import annotations

import json
import os
import stat
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .atomic_file import replacing
from .errors import UserError, listed, quoted
from .regular_file import check_regular

_LENGTH_BYTES = _ALIGNMENT = 8
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True, eq=False)
class TensorFile:
    """What a file held.

    Attributes
    ----------
    tensors : dict of str to Tensor
        CPU.
    metadata : dict of str to str
    """

    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, through a temporary one that is renamed; equal contents give equal bytes.

    Parameters
    ----------
    path : Path
        Its folder is made.
    tensors : mapping of str to Tensor
        Any device.
    metadata : mapping of str to str

    Raises
    ------
    UserError
        When the folder cannot be written to or the disk is full; `path` is then as it was.
    """
    # Large numbers first, so that each tensor begins at a multiple of its numbers' size.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // _ALIGNMENT) * _ALIGNMENT)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
        for _, tensor in ordered:
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)


def read_tensors(
    path: Path,
    what: str,
    cure: str,
    largest: int,
    marker: tuple[str, str] | None = None,
    shapes: Mapping[str, tuple[int | None, ...]] | None = None,
    finite: bool = True,
) -> TensorFile:
    """Read a safetensors file; refuse by name what is missing, wrong or too large, before its tensors are read.

    Parameters
    ----------
    what : str
        What it has to be, with its article, such as "a layout predictor".
    cure : str
        End of every sentence, such as "choose another file".
    largest : int
        Bytes.
    marker : (str, str), optional
        Key and value that the metadata must have.
    shapes : mapping of str to tuple, optional
        Tensors that must be there, no other; None in a shape is any length.
    finite : bool
        Whether NaN and infinity are refused.

    Raises
    ------
    UserError
    """
    name = quoted(path.name)
    try:
        facts = path.stat()
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror}); {cure}.") from error
    if not stat.S_ISREG(facts.st_mode):
        raise UserError(f"{name} is no file; {cure}.")
    if facts.st_size > largest:
        raise UserError(f"{name} is {facts.st_size / 1e6:.0f} MB, too large for {what}; {cure}.")
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            metadata = dict(file.metadata() or {})
            if marker is not None and metadata.get(marker[0]) != marker[1]:
                raise UserError(f"{name} is not {what} of this pack; {cure}.")
            names = list(file.keys())
            _check_shapes(name, {key: tuple(file.get_slice(key).get_shape()) for key in names}, shapes, what, cure)
            tensors = {key: file.get_tensor(key) for key in names}
    except UserError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, MemoryError) as error:
        raise UserError(f"{name} is damaged, or not {what} ({error}); {cure}.") from error
    broken = [key for key, value in tensors.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if finite and broken:
        raise UserError(f"{name} holds NaN or infinity in {listed(broken)}; {cure}.")
    return TensorFile(tensors, metadata)


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file; empty where it is none, which means that it is not ours."""
    try:
        if not path.is_file():
            return {}
        with safe_open(os.fspath(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return {}


def read_pickled(path: Path, largest: int, stand_ins: Iterable[Any] = ()) -> Any:
    """Read a file of ``torch.save``, of which nothing is run.

    Parameters
    ----------
    largest : int
        Bytes.
    stand_ins : iterable of (type, str)
        What takes the place of a class or function that the file names; others are refused.

    Raises
    ------
    ValueError
        With the reason.
    """
    try:
        check_regular(path, largest)
        check_stored(path)
        with torch.serialization.safe_globals(list(stand_ins)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle may raise anything
        raise ValueError(str(error) or type(error).__name__) from error


def check_stored(path: Path) -> None:
    """Refuse an archive that unpacks to more than it is: PyTorch stores without compressing.

    Raises
    ------
    ValueError
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > 2 * path.stat().st_size:
            raise ValueError("it unpacks to more than it is")


def plain_tensor(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is what a weight is: numbers that all stand in the file, each once."""
    if tensor.is_quantized or tensor.layout is not torch.strided or tensor.device.type != "cpu":
        return False
    if tensor.is_complex() or tensor.is_nested or type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _check_shapes(
    name: str,
    found: Mapping[str, tuple[int, ...]],
    wanted: Mapping[str, tuple[int | None, ...]] | None,
    what: str,
    cure: str,
) -> None:
    if wanted is None:
        return
    if missing := sorted(set(wanted) - set(found)):
        raise UserError(f"{name} lacks {listed(missing)} and so is not {what}; {cure}.")
    if surplus := sorted(set(found) - set(wanted)):
        raise UserError(f"{name} also holds {listed(surplus)} and so is not {what}; {cure}.")
    for key, shape in wanted.items():
        if len(shape) != len(found[key]) or any(w not in (None, f) for w, f in zip(shape, found[key], strict=True)):
            raise UserError(f"{name} holds {key} of shape {found[key]}, where {what} has another; {cure}.")
