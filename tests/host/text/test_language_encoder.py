"""A learned word as an input embedding of text encoders that are language models.

No such model is supported yet; these are the facts of the host that
docs/decisions/ahead/language-encoders.md builds on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from support import host
from support.models import language_encoders as language

PROMPT = "a photo of embedding:my-cat cat on grass"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of embeddings with my-cat, two vectors."""
    host.start()
    folder = tmp_path_factory.mktemp("embeddings")
    save_file({"my-cat": vectors()}, str(folder / "my-cat.safetensors"))
    return folder


def vectors() -> torch.Tensor:
    return torch.randn(2, language.WIDTH, generator=torch.Generator().manual_seed(1))


def opened(name: str, folder: Path) -> Any:
    from compinv_core.host.inference import normalise_parameters

    encoder = language.language_encoder(name, folder)
    normalise_parameters(encoder.text)
    return encoder


@pytest.mark.parametrize("name", language.NAMES)
def test_a_learned_vector_has_the_gradient_of_float64_differences(name: str, folder: Path) -> None:
    from compinv_core.host.text.encoder import inputs_copied

    encoder = opened(name, folder)
    rows = encoder.read_word(PROMPT, "my-cat", vectors())
    with inputs_copied(encoder.norms()):
        found = language.gradients(encoder, rows, vectors())
    assert found["differences"].norm(dim=1).gt(0).all()
    assert language.relative_error(found["exact"], found["differences"]) < 1e-7
    assert language.relative_error(found["host"], found["exact"]) < 5e-4


@pytest.mark.parametrize("name", language.NAMES)
def test_weights_of_the_executor_refuse_a_gradient_until_they_are_wrapped_anew(name: str, folder: Path) -> None:
    encoder = language.language_encoder(name, folder)
    rows = encoder.read_word(PROMPT, "my-cat", vectors())
    # The host's whole way casts these weights to float32, and the casts are ordinary tensors; here they are used as is.
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        encoder.encode_exactly(rows, vectors().double().requires_grad_(True), len(rows))


def test_t5_adds_in_place_to_what_its_norms_have_saved(folder: Path) -> None:
    encoder = opened("Flux, T5", folder)
    learned = vectors().requires_grad_(True)
    output = encoder.encode(encoder.read_word(PROMPT, "my-cat", learned))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        language.number_of(output).backward()


def test_qwen_image_has_no_embeddings_and_fails_at_a_vector(folder: Path) -> None:
    encoder = language.language_encoder("Qwen-Image, Qwen2.5-VL", folder)
    assert not language.vector_positions(encoder.read(PROMPT))
    encoder.words.embedding_directory = [str(folder)]
    with pytest.raises(RuntimeError, match="Boolean value of Tensor"):
        encoder.read(PROMPT)


def test_an_embedding_costs_the_chat_template_its_line_feeds(folder: Path) -> None:
    encoder = language.language_encoder("Z-Image, Qwen3", folder)
    names = encoder.words.inv_vocab

    def shown(prompt: str) -> list[str]:
        return ["S*" if isinstance(token, torch.Tensor) else names[token] for token, _ in encoder.read(prompt)]

    start, end = ["<|im_start|>", "user", "Ċ"], ["<|im_start|>", "assistant"]
    assert shown("a cat") == [*start, "a", "Ġcat", "<|im_end|>", "Ċ", *end, "Ċ"]
    # "cat" behind the vectors is another token than " cat"; the space before them is a token of its own.
    assert shown("a embedding:my-cat cat") == [*start, "a", "Ġ", "S*", "S*", "cat", "<|im_end|>", "Ġ", *end]
