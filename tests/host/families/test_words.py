"""Learned words of several encoders: their vectors, their files, and what the host makes of them in a prompt."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from support import host
from support.models.families import FamilyCase, is_encoding, stock_encoding
from support.models.training_case import load_as_executor

pytestmark = pytest.mark.usefixtures("one_thread")
TEMPLATES = ["a photo of {} cat", "{}", "a (small:1.3) photo of {} asleep", "a photo of ({} cat:1.2) and a ball"]


def written(case: FamilyCase, name: str, count: int = 2) -> Any:
    """A concept with random vectors, written by us where the host finds it."""
    from compinv_core.host.folders import embedding_path
    from compinv_core.learning.concept import Concept
    from compinv_core.learning.embedding_file import write_concept

    concept = Concept(name, "cat", case.word(count), num_vectors=count, widths=dict(case.widths))
    path = embedding_path(name)
    path.unlink(missing_ok=True)
    write_concept(concept, path)
    return concept


def test_anchors_stand_side_by_side_in_the_encoders_order(case: FamilyCase) -> None:
    from compinv_core.host.text.encoder import load_anchors

    _, clip, _ = case.loaded
    anchors = load_anchors(clip, ["cat", "teddy bear"])
    assert anchors.vectors.shape == (2, case.width) and anchors.vectors.dtype == torch.float32
    assert dict(anchors.widths) == case.widths and list(anchors.widths) == list(case.widths)
    tokenizer = getattr(clip.tokenizer, next(iter(case.widths))).tokenizer
    cat, teddy, bear = (ids[1] for ids in tokenizer(["cat", "teddy", "bear"])["input_ids"])
    for key, part in case.parts(anchors.vectors).items():
        table = getattr(clip.cond_stage_model, key).transformer.get_input_embeddings().weight.float()
        torch.testing.assert_close(part[0], table[cat])
        torch.testing.assert_close(part[1], table[[teddy, bear]].mean(0))


def test_a_word_starts_at_its_noun_in_every_encoder(case: FamilyCase) -> None:
    from compinv_core.host.learning.concepts import initial_vectors
    from compinv_core.host.text.encoder import load_anchors

    _, clip, _ = case.loaded
    cat = load_anchors(clip, ["cat"]).vectors
    assert torch.equal(initial_vectors(clip, "cat", 3), cat.repeat(3, 1))


def test_a_file_holds_the_vectors_of_each_encoder(case: FamilyCase) -> None:
    from compinv_core.host.folders import embedding_path

    concept = written(case, "filed-cat", 3)
    file = load_file(embedding_path("filed-cat"))
    expected = case.parts(concept.vectors)
    assert set(file) == set(case.widths)
    assert all(torch.equal(file[key], part) for key, part in expected.items())
    assert all(value.dtype == torch.float32 for value in file.values())


def test_a_word_of_stable_diffusion_1_is_filed_as_before() -> None:
    from compinv_core.host.folders import embedding_path
    from compinv_core.learning.concept import Concept
    from compinv_core.learning.embedding_file import write_concept

    host.start()
    vectors = torch.randn(2, 768, generator=torch.Generator().manual_seed(0))
    path = embedding_path("plain-cat")
    path.unlink(missing_ok=True)
    write_concept(Concept("plain-cat", "cat", vectors, num_vectors=2), path)
    file = load_file(path)
    assert list(file) == ["<plain-cat>"] and torch.equal(file["<plain-cat>"], vectors)


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_host_encodes_a_word_as_the_training_does(case: FamilyCase, template: str) -> None:
    from compinv_core.host.text.sentences import TemplateEncoder

    _, clip, _ = case.loaded
    concept = written(case, "read-cat")
    expected = stock_encoding(clip, template.replace("{}", f"{concept.prompt_word} ", 1))
    with torch.inference_mode():
        encoder = TemplateEncoder(clip, [template], 2, "cat")
        ours, again = encoder.sentences[0].encode(clip, concept.vectors), encoder(0, concept.vectors)
    assert is_encoding(ours, expected, case) and is_encoding(again, expected, case)


def test_a_sentence_without_a_word_is_encoded_as_the_host_does(case: FamilyCase) -> None:
    from compinv_core.host.text.sentences import read_sentence

    _, clip, _ = case.loaded
    text = "a photo of a (cat:1.2) and a ball"
    with torch.inference_mode():
        ours = read_sentence(clip, text, "class_prompt").encode(clip)
    assert is_encoding(ours, stock_encoding(clip, text), case)


def test_clip_skip_counts(case: FamilyCase) -> None:
    from compinv_core.host.text.sentences import TemplateEncoder

    clip = case.loaded[1].clone()
    clip.clip_layer(-3)
    concept = written(case, "skipped-cat")
    expected = stock_encoding(clip, f"a photo of {concept.prompt_word} cat")
    with torch.inference_mode():
        ours = TemplateEncoder(clip, ["a photo of {} cat"], 2, "cat")(0, concept.vectors)
    assert is_encoding(ours, expected, case)
    assert not torch.equal(expected[0], stock_encoding(case.loaded[1], f"a photo of {concept.prompt_word} cat")[0])


def test_encoding_is_the_same_with_gradients_and_reaches_every_encoder(case: FamilyCase) -> None:
    from compinv_core.host.learning.session import training_session
    from compinv_core.host.text.encoder import text_encoder_gradients
    from compinv_core.host.text.sentences import TemplateEncoder

    model, clip, _ = case.loaded
    concept = written(case, "taught-cat")
    expected = stock_encoding(clip, f"a {concept.prompt_word} cat asleep")
    encoder = TemplateEncoder(clip, ["a {} cat asleep"], 2, "cat")
    with training_session(model, clip, (1, 4, 8, 8)) as (_, open_clip), text_encoder_gradients(open_clip):
        vectors = concept.vectors.clone().requires_grad_(True)
        encoded = encoder(0, vectors)
        context, pooled = encoded.tokens, encoded.pooled
        (by_context,) = torch.autograd.grad(context.square().mean(), vectors, retain_graph=True)
        if case.pooled:
            (by_pooled,) = torch.autograd.grad(pooled.square().mean(), vectors)
            for key, part in case.parts(by_pooled).items():
                assert bool((part != 0).any()) is (key == case.pooled), key
            torch.testing.assert_close(pooled.detach(), expected[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(context.detach(), expected[0], rtol=0, atol=1e-5)
    assert all((part.abs().sum(1) > 0).all() for part in case.parts(by_context).values())


def test_a_word_takes_its_places_in_phrases(case: FamilyCase) -> None:
    from compinv_core.host.text.spans import find_spans

    _, clip, _ = case.loaded
    concept = written(case, "placed-cat", 3)
    spans = find_spans(clip, f"a {concept.prompt_word} cat and a ball", ("placed-cat cat", "a ball"), "Test Node")
    assert [span.tokens for span in spans] == [(2, 3, 4, 5), (7, 8)]
    assert spans[0].placeholder == (2, 3, 4)


def test_a_word_of_stable_diffusion_1_is_named_with_the_families(
    case: FamilyCase, caplog: pytest.LogCaptureFixture
) -> None:
    from compinv_core.basics.errors import UserError
    from compinv_core.host.text.spans import find_spans

    _, clip, _ = case.loaded
    folder = host.start() / "models" / "embeddings"
    save_file({"<old-cat>": torch.randn(2, 768) * 0.0137}, folder / "old-cat.safetensors")
    with caplog.at_level(logging.WARNING, "compinv"):
        find_spans(clip, "embedding:old-cat cat and a ball", ("a ball",), "Test Node")
    (message,) = [record.message for record in caplog.records if record.name == "compinv"]
    assert '"old-cat"' in message and "Stable Diffusion 1" in message and case.name in message
    with pytest.raises(UserError, match='"old-cat".*Stable Diffusion 1') as caught:
        find_spans(clip, "embedding:old-cat cat and a ball", ("old-cat cat",), "Test Node")
    assert case.name in str(caught.value)


@pytest.mark.parametrize("kind", ["tiny", "sd2"])
def test_a_word_of_two_encoders_is_refused_with_a_clip_of_one(sdxl: FamilyCase, kind: str) -> None:
    from compinv_core.basics.errors import UserError
    from compinv_core.host.semantic.words import chosen_word, inspect_word
    from compinv_core.host.text.encoder import load_anchors

    _, clip, _ = load_as_executor(kind)
    concept, anchors = written(sdxl, "double-cat"), load_anchors(clip, ["cat", "dog"])

    def inspect() -> None:
        inspect_word(clip, chosen_word(clip, "", concept, "Inspect Embedding"), anchors)

    with pytest.raises(UserError, match="Stable Diffusion XL"):
        inspect()


def test_half_a_word_is_named_where_its_other_text_encoder_is_missing(
    sdxl: FamilyCase, caplog: pytest.LogCaptureFixture
) -> None:
    from compinv_core.host.text.spans import find_spans

    sdxl.save_word("whole-cat", sdxl.word(2))
    _, clip, _ = load_as_executor("tiny")
    with caplog.at_level(logging.WARNING, "compinv"):
        find_spans(clip, "embedding:whole-cat cat and a ball", ("a ball",), "Test Node")
        find_spans(sdxl.loaded[1], "embedding:whole-cat cat and a ball", ("a ball",), "Test Node")
    (message,) = [record.message for record in caplog.records if record.name == "compinv"]
    assert '"whole-cat"' in message and sdxl.name in message and "clip_l" in message


def test_a_layout_data_set_is_collected(case: FamilyCase, tmp_path: Path) -> None:
    from compinv_core.host.layouts.collection import CollectionConfig, collect_layouts
    from compinv_core.host.text.encoder import load_anchors
    from support import layouts

    model, clip, vae = case.loaded
    config = CollectionConfig(**layouts.collection(pairs=1, images_per_pair=1))
    with torch.inference_mode():
        anchors = load_anchors(clip, layouts.NOUNS)
        found = collect_layouts(model, clip, vae, layouts.PixelDetector(), anchors, config, tmp_path / "pairs")
    assert found.pictures >= 1
