"""Tensor files: equal contents are equal bytes, and what is missing, wrong or too large is refused by name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from compinv_core.basics.errors import UserError
from compinv_core.basics.tensor_file import read_metadata, read_tensors, write_tensors

TENSORS = {"b.weight": torch.arange(6.0).reshape(2, 3), "a": torch.ones(4, dtype=torch.float16), "n": torch.tensor(3)}
METADATA = {f"key {i}": f'value "{i}" é\n' for i in range(20)} | {"kind": "test-1"}
WANTED = {"b.weight": (2, None), "a": (4,), "n": ()}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "x.safetensors", TENSORS, METADATA)
    return tmp_path / "x.safetensors"


def read(path: Path, **options):
    return read_tensors(path, "a test file", "choose another", 10_000, **options)


def test_other_readers_of_the_format_read_it(path: Path) -> None:
    loaded = load_file(path)
    assert set(loaded) == set(TENSORS)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())
    assert read_metadata(path) == METADATA


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int16", "uint8", "bool"])
def test_every_type_comes_back(tmp_path: Path, dtype: str) -> None:
    tensors = {"x": torch.tensor([[0.0, 1.0], [1.0, 0.0]]).to(getattr(torch, dtype)).T, "none": torch.zeros(0, 3)}
    write_tensors(tmp_path / "x", tensors, {})
    loaded = load_file(tmp_path / "x")
    assert loaded["x"].dtype == tensors["x"].dtype
    assert torch.equal(loaded["x"].float(), tensors["x"].float())
    assert loaded["none"].shape == (0, 3)


def test_equal_contents_are_equal_bytes(path: Path) -> None:
    contents = set()
    for number in range(8):
        other = path.with_name(f"{number}.safetensors")
        keys = list(METADATA)[number:] + list(METADATA)[:number]
        names = list(TENSORS)[number % 3 :] + list(TENSORS)[: number % 3]
        write_tensors(other, {name: TENSORS[name] for name in names}, {key: METADATA[key] for key in keys})
        contents.add(other.read_bytes())
    assert contents == {path.read_bytes()}


def test_the_header_is_sorted(path: Path) -> None:
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert list(header["__metadata__"]) == sorted(METADATA)


def test_it_is_read_back(path: Path) -> None:
    file = read(path, marker=("kind", "test-1"), shapes=WANTED)
    assert file.metadata == METADATA
    assert all(torch.equal(file.tensors[name], tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"marker": ("kind", "other")}, "is not a test file of this pack"),
        ({"shapes": {**WANTED, "c": (1,)}}, "lacks c"),
        ({"shapes": {"a": (4,), "n": ()}}, "also holds b.weight"),
        ({"shapes": {**WANTED, "a": (5,)}}, r"holds a of shape \(4,\)"),
        ({"shapes": {**WANTED, "a": (4, 1)}}, r"holds a of shape \(4,\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(path: Path, options: dict, words: str) -> None:
    with pytest.raises(UserError, match=f'"x.safetensors" {words}.*; choose another.'):
        read(path, **options)


def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", {"sound": torch.ones(2), "bad": torch.tensor([1.0, float("nan")])}, {})
    with pytest.raises(UserError, match="holds NaN or infinity in bad"):
        read(tmp_path / "x")


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 64, b"\x10" + b"\0" * 7 + b"{" * 16])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match="damaged, or not a test file"):
        read(tmp_path / "x")
    assert read_metadata(tmp_path / "x") == {}


def test_a_file_cut_short_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="damaged"):
        read(path)


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(20_000)}, tmp_path / "x")
    with pytest.raises(UserError, match="too large for a test file"):
        read(tmp_path / "x")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in (".", "pipe", "nothing"):
        with pytest.raises(UserError, match="choose another"):
            read(tmp_path / name)
        assert read_metadata(tmp_path / name) == {}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_tensors(path, TENSORS, {"number": {5}})  # type: ignore[dict-item]
    with pytest.raises(KeyError):
        write_tensors(path, {**TENSORS, "complex": torch.zeros(2, dtype=torch.complex64)}, METADATA)
    assert path.read_bytes() == before
    assert names_in(path.parent) == [path.name]
