"""Embedding files: what we write, whom we do not overwrite, and what other tools write."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from compinv_core.basics.errors import UserError
from compinv_core.basics.names import check_name
from compinv_core.learning.concept import Concept
from compinv_core.learning.embedding_file import MAKER_KEY, anchors_to_text, read_concept, write_concept


def a_concept(count: int = 2) -> Concept:
    vectors = torch.randn(count, 768, generator=torch.Generator().manual_seed(0))
    return Concept("my-cat", "cat", vectors, {MAKER_KEY: "0.1.0", "anchors": anchors_to_text({"cat": 0.75})})


def test_file_holds_one_tensor_named_after_the_concept(tmp_path: Path) -> None:
    path = tmp_path / "embeddings" / "my-cat.safetensors"
    write_concept(a_concept(), path)
    content = load_file(path)
    assert list(content) == ["<my-cat>"]
    assert content["<my-cat>"].dtype == torch.float32 and content["<my-cat>"].shape == (2, 768)
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["superclass"] == "cat" and file.metadata()["anchors"] == '{"cat": 0.75}'
    assert [entry.name for entry in path.parent.iterdir()] == ["my-cat.safetensors"]


def test_written_concept_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "my-cat.safetensors"
    write_concept(a_concept(), path)
    found = read_concept(path)
    assert torch.equal(found.vectors, a_concept().vectors)
    assert (found.name, found.superclass, found.prompt_word) == ("my-cat", "cat", "embedding:my-cat")


def test_our_own_file_is_replaced_and_others_are_not(tmp_path: Path) -> None:
    path = tmp_path / "my-cat.safetensors"
    write_concept(a_concept(1), path)
    write_concept(a_concept(3), path)
    assert read_concept(path).vectors.shape == (3, 768)
    theirs = torch.ones(1, 768)
    save_file({"emb_params": theirs}, path)
    with pytest.raises(UserError, match="not made by CompInv"):
        write_concept(a_concept(), path)
    assert torch.equal(load_file(path)["emb_params"], theirs)


@pytest.mark.parametrize("other", ["my-cat.pt", "sd15/my-cat.safetensors"])
def test_a_second_embedding_of_the_name_is_refused(tmp_path: Path, other: str) -> None:
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).touch()
    (tmp_path / "my-cat.txt").touch()
    with pytest.raises(UserError, match=f'my-cat", {other}, and .*; choose another name'):
        write_concept(a_concept(), tmp_path / "my-cat.safetensors")
    write_concept(a_concept(), tmp_path / "my-car.safetensors")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my-cat.safetensors"
    write_concept(a_concept(1), path)

    def full_disk(*args: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_concept(a_concept(2), path)
    assert read_concept(path).vectors.shape == (1, 768)
    assert [entry.name for entry in tmp_path.iterdir()] == ["my-cat.safetensors"]


VECTORS = torch.arange(2 * 768.0).reshape(2, 768)
FOREIGN = {
    "diffusers.bin": {"<cat-toy>": VECTORS[0]},
    "a1111.pt": {"string_to_token": {"*": 265}, "string_to_param": {"*": VECTORS}, "name": "x", "step": 100},
    "bare.pt": VECTORS,
    "parameter.pt": {"string_to_param": {"*": torch.nn.Parameter(VECTORS)}},
    "sdxl.safetensors": {"clip_l": VECTORS, "clip_g": torch.zeros(2, 1280)},
    "one-key.safetensors": {"emb_params": VECTORS.half()},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_tools_files_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(FOREIGN[name], path)
    else:
        torch.save(FOREIGN[name], path)
    found = read_concept(path)
    expected = VECTORS.half().float() if name == "one-key.safetensors" else VECTORS
    expected = expected[:1] if name == "diffusers.bin" else expected
    assert torch.equal(found.vectors, expected) and found.vectors.dtype == torch.float32
    assert not found.vectors.requires_grad and found.name == path.stem


class Payload:
    """Stands for code in a pickle."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("compinv-pickle-ran"),))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("gone.safetensors", None, "does not exist"),
        ("broken.safetensors", b"garbage" * 10, "damaged, or not an embedding"),
        ("broken.pt", b"garbage" * 10, "plain tensors"),
        ("code.pt", {"a": Payload()}, "could run code"),
        ("sd2.safetensors", {"a": torch.zeros(1, 1024)}, "1024 wide"),
        ("nan.safetensors", {"a": torch.full((1, 768), float("nan"))}, "NaN"),
        ("long.safetensors", {"a": torch.zeros(76, 768)}, "76 vectors"),
        ("two.safetensors", {"a": torch.zeros(1, 768), "b": torch.zeros(1, 768)}, "2 tensors"),
        ("ids.safetensors", {"a": torch.zeros(1, 768, dtype=torch.int64)}, "floating point"),
        ("empty.safetensors", {"a": torch.zeros(0, 768)}, "floating point"),
        ("meta.pt", {"a": torch.zeros(1, 768, device="meta")}, "do not stand in the file"),
        ("spread.pt", {"a": torch.zeros(1).expand(1, 768)}, "do not stand in the file"),
        ("odd.pt", pickle.dumps(torch.UntypedStorage), "plain tensors"),
        ("large.safetensors", {"a": torch.zeros(21_000, 768)}, "too large"),
    ],
)
def test_bad_files_get_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: Any, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    with pytest.raises(UserError, match=sentence):
        read_concept(path)
    assert not (tmp_path / "compinv-pickle-ran").exists()


@pytest.mark.parametrize("name", ["my-cat", "A_1", "x" * 64, " padded "])
def test_good_names(name: str) -> None:
    assert check_name(name) == name.strip()


@pytest.mark.parametrize(
    "name", ["", "  ", "../x", "a/b", "a\\b", "a b", "a<b", "a[b", "käse", "x.pt", "x" * 65, "..", "a\nb"]
)
def test_bad_names_get_a_sentence(name: str) -> None:
    with pytest.raises(UserError, match="filename"):
        check_name(name, "filename")


XL = {"clip_l": 768, "clip_g": 1280}
PARTS = {"clip_l": torch.full((2, 768), 0.1), "clip_g": torch.full((2, 1280), 0.2)}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.safetensors", PARTS),
        ("pickled.pt", PARTS),
        ("with-more.safetensors", {**PARTS, "emp_params": torch.zeros(3)}),
        ("bundled.safetensors", {f"bundle_emb.cat.{key}": value for key, value in PARTS.items()}),
        ("half.safetensors", {key: value.half() for key, value in PARTS.items()}),
    ],
)
def test_words_of_two_text_encoders_are_read_side_by_side(tmp_path: Path, name: str, content: Any) -> None:
    path = tmp_path / name
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    found = read_concept(path, XL)
    assert found.vectors is not None and found.num_vectors == 2 and found.widths == XL
    assert torch.allclose(found.vectors, torch.cat(list(PARTS.values()), 1), atol=1e-4)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"cat": torch.zeros(1, 768)}, "no vectors for the text encoder clip_l.*another kind of model"),
        ({"clip_l": torch.zeros(1, 768)}, "no vectors for the text encoder clip_g"),
        ({"clip_l": torch.zeros(1, 768), "clip_g": torch.zeros(2, 1280)}, "1, 2 vectors"),
        ({"clip_l": torch.zeros(1, 768), "clip_g": torch.zeros(1, 768)}, "768 wide.*1280 wide"),
    ],
)
def test_files_that_are_no_word_of_two_text_encoders_are_refused(tmp_path: Path, content: Any, sentence: str) -> None:
    save_file(content, tmp_path / "cat.safetensors")
    with pytest.raises(UserError, match=sentence):
        read_concept(tmp_path / "cat.safetensors", XL)


@pytest.mark.parametrize(
    ("widths", "keys"), [({}, ["<cat>"]), ({"clip_l": 768}, ["<cat>"]), ({"clip_h": 1024}, ["clip_h"]), (XL, list(XL))]
)
def test_a_word_is_filed_under_the_keys_of_its_text_encoders(
    tmp_path: Path, widths: dict[str, int], keys: list[str]
) -> None:
    vectors = torch.randn(3, sum(widths.values()) or 768)
    write_concept(Concept("cat", "cat", vectors, num_vectors=3, widths=widths), tmp_path / "cat.safetensors")
    assert sorted(load_file(tmp_path / "cat.safetensors")) == sorted(keys)
    assert torch.equal(read_concept(tmp_path / "cat.safetensors", widths or {"clip_l": 768}).vectors, vectors)


def test_one_of_several_bundled_words_is_not_guessed(tmp_path: Path) -> None:
    save_file({f"bundle_emb.{name}.clip_l": torch.ones(1, 768) for name in ("a", "b")}, tmp_path / "two.safetensors")
    with pytest.raises(UserError, match="2 embeddings"):
        read_concept(tmp_path / "two.safetensors")


def test_half_of_a_word_is_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_file(PARTS, tmp_path / "cat.safetensors")
    with caplog.at_level("WARNING", "compinv"):
        assert torch.equal(read_concept(tmp_path / "cat.safetensors").vectors, PARTS["clip_l"])
    assert "not that for clip_g" in caplog.text


def test_a_bundled_word_of_one_text_encoder_is_read(tmp_path: Path) -> None:
    save_file({"bundle_emb.cat.string_to_param.*": torch.ones(2, 768), "x": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert torch.equal(read_concept(tmp_path / "a.safetensors").vectors, torch.ones(2, 768))
