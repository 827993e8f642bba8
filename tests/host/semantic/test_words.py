"""Inspect and Adjust Embedding on the server: any file that the host reads, and one sentence for every bad one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from support.server import ComfyServer

CLIP = ["1", 1]


class Touch:
    """Would make a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        import os

        return (os.mkdir, (str(self.path),))


@pytest.fixture(scope="module")
def embeddings(server: ComfyServer) -> Path:
    """The server's embeddings: one of each kind of file, good and bad."""
    folder = server.base / "models" / "embeddings"
    generator = torch.Generator().manual_seed(0)
    long = torch.randn(2, 768, generator=generator) * 0.3
    save_file({"emb_params": long}, folder / "stranger.safetensors")
    torch.save({"string_to_param": {"*": long}}, folder / "a1111.pt")
    torch.save(long[0], folder / "bare.pt")
    torch.save({"x": Touch(folder / "ran")}, folder / "evil.pt")
    save_file({"x": torch.zeros(1, 768)}, folder / "zero.safetensors")
    save_file({"x": torch.randn(1, 1024)}, folder / "wide.safetensors")
    save_file({"x": torch.randn(75, 768)}, folder / "many.safetensors")
    (folder / "text.safetensors").write_text("no tensors")
    return folder


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def graph(kind: str, embedding: str, **inputs: Any) -> dict[str, Any]:
    prompt = {
        "1": node("CheckpointLoaderSimple", ckpt_name="tiny.safetensors"),
        "2": node("CompInvLoadAnchors", clip=CLIP, vocabulary="none", extra_words="cat, dog, bird"),
        "3": node(kind, clip=CLIP, embedding=embedding, anchors=["2", 0], superclass="cat", **inputs),
    }
    if kind == "CompInvAdjustEmbedding":
        prompt["3"]["inputs"] = {"strength": 0.4, "filename": "", **prompt["3"]["inputs"]}
    return prompt


def without_anchors(prompt: dict[str, Any], superclass: str) -> dict[str, Any]:
    del prompt["3"]["inputs"]["anchors"]
    prompt["3"]["inputs"]["superclass"] = superclass
    return prompt


@pytest.mark.parametrize("name", ["stranger.safetensors", "a1111.pt", "bare.pt", "many.safetensors"])
def test_any_embedding_is_inspected(server: ComfyServer, embeddings: Path, name: str) -> None:
    prompt = graph("CompInvInspectEmbedding", name)
    prompt["4"] = node("SaveImage", images=["3", 1], filename_prefix="map")
    result = server.run(prompt)
    assert result.ok, result
    text = result.outputs["3"]["text"][0]
    assert "The word has left the nouns" in text and "no fault by itself" in text
    assert text.count("vector ") == {"many.safetensors": 75, "bare.pt": 1}.get(name, 2)
    (picture,) = server.images(result, "4")
    assert picture.shape == (768, 768, 3)


def test_with_a_model_the_composition_is_measured(server: ComfyServer, embeddings: Path) -> None:
    result = server.run(graph("CompInvInspectEmbedding", "stranger.safetensors", model=["1", 0]))
    assert result.ok, result
    assert "composition 0." in result.outputs["3"]["text"][0]


def test_a_repaired_word_is_a_new_file_beside_the_old(server: ComfyServer, embeddings: Path) -> None:
    before = (embeddings / "stranger.safetensors").read_bytes()
    prompt = graph("CompInvAdjustEmbedding", "stranger.safetensors", strength=1.0)
    inspected = {"clip": CLIP, "embedding": "choose an embedding", "superclass": "", "concept": ["3", 0]}
    prompt["4"] = node("CompInvInspectEmbedding", **inspected)
    prompt["5"] = node("PreviewAny", source=["3", 1])
    result = server.run(prompt)
    assert result.ok, result
    assert result.outputs["5"]["text"] == ["embedding:stranger-adjusted"]
    assert result.outputs["4"]["text"][0].startswith("The word stands near its nouns")
    assert (embeddings / "stranger.safetensors").read_bytes() == before
    with safe_open(embeddings / "stranger-adjusted.safetensors", "pt") as file:
        metadata = file.metadata()
        (name,) = file.keys()
        assert file.get_tensor(name).shape == (2, 768)
    assert metadata["adjusted_from"] == "stranger" and metadata["superclass"] == "cat"
    assert set(json.loads(metadata["anchors"])) <= {"cat", "dog", "bird"}


@pytest.mark.parametrize(
    ("kind", "name", "inputs", "words"),
    [
        (
            "CompInvInspectEmbedding",
            "many.safetensors",
            {"model": ["1", 0]},
            "with 75 vectors",
        ),
        ("CompInvInspectEmbedding", "choose an embedding", {}, "has no word yet; choose a file in `embedding`"),
        ("CompInvInspectEmbedding", "zero.safetensors", {}, "A vector of the word is zero or not finite"),
        ("CompInvAdjustEmbedding", "zero.safetensors", {}, "A vector of the word is zero or not finite"),
        ("CompInvInspectEmbedding", "wide.safetensors", {}, "1024 wide, made for another text encoder"),
        ("CompInvInspectEmbedding", "evil.pt", {}, "cannot be read as plain tensors"),
        ("CompInvAdjustEmbedding", "text.safetensors", {}, "text.safetensors"),
        ("CompInvAdjustEmbedding", "bare.pt", {"filename": "bare"}, "is that of the word itself, which is kept"),
        ("CompInvAdjustEmbedding", "bare.pt", {"filename": "stranger"}, "was not made by CompInv"),
        ("CompInvAdjustEmbedding", "bare.pt", {"filename": "a/b"}, "filename"),
    ],
)
def test_bad_words_get_a_sentence(
    server: ComfyServer, embeddings: Path, kind: str, name: str, inputs: dict, words: str
) -> None:
    result = server.run(graph(kind, name, **inputs))
    assert words in result.error, result
    assert result.error_type.endswith("UserError") and result.error_node == kind
    assert "; " in result.error and "\n" not in result.error
    assert not (embeddings / "ran").exists()


def test_without_anchors_and_class_noun_there_is_nothing_to_compare_with(server: ComfyServer, embeddings: Path) -> None:
    for kind in ("CompInvInspectEmbedding", "CompInvAdjustEmbedding"):
        result = server.run(without_anchors(graph(kind, "bare.pt", **({"filename": "x"} if "Adj" in kind else {})), ""))
        assert "connect Load Anchors to `anchors`, or type the class noun" in result.error
        alone = server.run(
            without_anchors(graph(kind, "bare.pt", **({"filename": "x"} if "Adj" in kind else {})), "cat")
        )
        assert alone.ok, alone


def test_a_missing_file_and_a_share_beyond_one(server: ComfyServer, embeddings: Path) -> None:
    gone = server.run(graph("CompInvInspectEmbedding", "gone.safetensors"))
    assert not gone.ok and "gone.safetensors" in str(gone)
    beyond = server.run(graph("CompInvAdjustEmbedding", "bare.pt", strength=1.5))
    assert not beyond.ok and "strength" in str(beyond)
