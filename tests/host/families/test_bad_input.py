"""What does not go together on SDXL and Stable Diffusion 2 gets one sentence, before any long work."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from support import checkpoints, host, layouts
from support.models.families import FAMILIES, FamilyCase
from support.models.training_case import Loaded, load_as_executor, short_config, short_tuning, train, tune

host.start()

NAMES = {"tiny": "Stable Diffusion 1", **{kind: case.name for kind, case in FAMILIES.items()}}
TEMPLATE = "a photo of a {} and a {}"


def complaint(action: Callable[[], Any]) -> str:
    """The one sentence that an action ends with, at once."""
    from compinv_core.basics.errors import UserError

    start = time.monotonic()
    with torch.inference_mode(), pytest.raises(UserError) as caught:
        action()
    sentence = str(caught.value)
    assert time.monotonic() - start < 20
    assert sentence.endswith(".") and "\n" not in sentence
    assert len(re.findall(r"[.!?](?=\s|$)", sentence)) == 1, f"more than one sentence: {sentence}"
    # A cure, not only a complaint: what to do stands behind a semicolon.
    assert re.search(r"; \w+", sentence), sentence
    return sentence


def actions(loaded: Loaded) -> dict[str, Callable[[], Any]]:
    """What takes a MODEL and a CLIP."""
    from compinv_core.boxes.layout import Layout
    from compinv_core.host.layouts.collection import CollectionConfig, collect_layouts
    from compinv_core.host.recording.recorder import record_attention
    from compinv_core.host.spatial.guidance import apply_layout_guidance
    from compinv_core.host.text.encoder import load_anchors
    from compinv_core.spatial.settings import GuidanceConfig

    model, clip, vae = loaded
    layout = Layout(("a cat", "a ball"), ((0, 0, 0.5, 1), (0.5, 0, 1, 1)), 64, 64)
    collection = CollectionConfig(**layouts.collection(pairs=1, images_per_pair=1))
    return {
        "Train Concept": lambda: train(loaded, short_config(steps=1)),
        "Train Custom Diffusion": lambda: tune(loaded, short_tuning("custom_diffusion", steps=1)),
        "Train DreamBooth": lambda: tune(loaded, short_tuning("dreambooth", steps=1)),
        "Apply Layout Guidance": lambda: apply_layout_guidance(
            model, clip, "a cat and a ball", layout, GuidanceConfig()
        ),
        "Record Attention": lambda: record_attention(model, clip, "a cat and a ball", ("a cat",)),
        "Collect Layouts": lambda: collect_layouts(
            model, clip, vae, layouts.PixelDetector(), load_anchors(clip, layouts.NOUNS), collection,
            host.start() / "never",
        ),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["refiner", "unclip"])
def test_models_that_are_not_supported_are_refused_by_every_node(sdxl: FamilyCase, kind: str) -> None:
    _, clip, vae = sdxl.loaded
    for name, action in actions((host.load_anew(kind)[0], clip, vae)).items():
        sentence = complaint(action)
        assert sentence.startswith(f"{name}: ") and all(family in sentence for family in NAMES.values()), sentence
        assert "`model`" in sentence, sentence


@pytest.mark.parametrize(("model", "clip"), [("sdxl", "sd2"), ("sd2", "sdxl"), ("sdxl", "tiny"), ("tiny", "sdxl")])
def test_a_text_encoder_of_another_family_is_refused_by_every_node(model: str, clip: str) -> None:
    (network, _, vae), (_, encoder, _) = load_as_executor(model), load_as_executor(clip)
    for name, action in actions((network, encoder, vae)).items():
        sentence = complaint(action)
        assert sentence.startswith(f"{name}: ") and NAMES[model] in sentence and "`clip`" in sentence, sentence


def test_an_autoencoder_of_other_latents_is_refused(case: FamilyCase) -> None:
    import comfy.sd
    from comfy.taesd.taesd import TAESD

    with torch.inference_mode(False):
        autoencoder = TAESD(latent_channels=16)
        checkpoints.initialise(autoencoder)
        vae = comfy.sd.VAE(sd=autoencoder.state_dict())
    model, clip, _ = case.loaded
    sentence = complaint(lambda: train((model, clip, vae), short_config(steps=1)))
    assert "16 channels" in sentence and "`vae`" in sentence and case.name in sentence


def test_anchors_of_another_text_encoder_are_refused(case: FamilyCase) -> None:
    from compinv_core.host.text.encoder import load_anchors

    others = [load_as_executor("tiny"), *(other.loaded for other in FAMILIES.values() if other is not case)]
    for _, clip, _ in others:
        with torch.inference_mode():
            anchors = load_anchors(clip, ["dog", "bird"])
        sentence = complaint(lambda anchors=anchors: train(case.loaded, short_config(steps=1), anchors=anchors))
        assert "Load Anchors" in sentence and "`clip`" in sentence


def test_anchors_of_two_text_encoders_are_not_merged(sdxl: FamilyCase) -> None:
    from compinv_core.host.text.encoder import load_anchors

    with torch.inference_mode():
        one, other = (load_anchors(clip, ["dog"]) for clip in (sdxl.loaded[1], load_as_executor("sd2")[1]))
    assert "same text encoder" in complaint(lambda: one.merged(other))


def test_concepts_of_another_family_are_not_inspected(case: FamilyCase) -> None:
    from compinv_core.host.semantic.words import chosen_word
    from compinv_core.learning.concept import Concept

    plain = Concept("old-cat", "cat", torch.zeros(1, 768) + 0.01)
    sentence = complaint(lambda: chosen_word(case.loaded[1], "", plain, "Inspect Embedding"))
    assert "Stable Diffusion 1" in sentence and case.name in sentence


@pytest.mark.parametrize("features", ["raw", "refined"])
def test_a_predictor_of_another_text_encoder_is_refused(case: FamilyCase, features: str) -> None:
    from compinv_core.host.layouts.prediction import predict_layout
    from compinv_core.layouts.predictor import LayoutPredictor, PairNetwork

    with torch.inference_mode(False):
        network = PairNetwork(768).eval()
    predictor = LayoutPredictor("older", network, ("cat", "dog"), features, TEMPLATE, "of another")
    sentence = complaint(lambda: predict_layout(predictor, case.loaded[1], ("a cat", "a dog"), 512, 512))
    assert sentence.startswith("Predict Layout: ") and "older" in sentence


def test_the_predictor_of_a_family_predicts_for_it(case: FamilyCase) -> None:
    from compinv_core.host.fingerprints import text_encoder_fingerprint
    from compinv_core.host.layouts.prediction import pair_features, predict_layout
    from compinv_core.layouts.predictor import LayoutPredictor, PairNetwork

    _, clip, _ = case.loaded
    for features in ("raw", "refined"):
        found = pair_features(clip, ("cat", "teddy bear"), features, TEMPLATE)
        assert found.shape == (2, case.width) and found.isfinite().all()
        with torch.inference_mode(False):
            network = PairNetwork(case.width).eval()
        predictor = LayoutPredictor("own", network, ("cat", "dog"), features, TEMPLATE, text_encoder_fingerprint(clip))
        with torch.inference_mode():
            layout, nouns = predict_layout(predictor, clip, ("a cat", "a red dog"), 512, 256)
        assert nouns == {"a cat": "cat", "a red dog": "dog"} and len(layout.boxes) == 2


def test_the_shipped_predictor_is_refused(case: FamilyCase) -> None:
    from compinv_core.host.folders import MINIATURE_WORLD
    from compinv_core.host.layouts.prediction import predict_layout
    from compinv_core.host.layouts.predictor_choice import chosen_predictor

    predictor = chosen_predictor(MINIATURE_WORLD)
    sentence = complaint(lambda: predict_layout(predictor, case.loaded[1], ("a cat", "a dog"), 512, 512))
    assert predictor.name in sentence


def test_a_conditioning_of_another_text_encoder_is_refused(case: FamilyCase) -> None:
    from compinv_core.boxes.layout import Layout
    from compinv_core.host.spatial.guidance import apply_layout_guidance
    from compinv_core.spatial.settings import GuidanceConfig

    model, clip, _ = case.loaded
    layout = Layout(("a cat",), ((0, 0, 0.5, 1),), 64, 64)
    _, other, _ = load_as_executor("tiny")
    with torch.inference_mode():
        foreign = other.encode_from_tokens_scheduled(other.tokenize("a cat"))
    sentence = complaint(
        lambda: apply_layout_guidance(model, clip, "a cat", layout, GuidanceConfig(), conditioning=foreign)
    )
    assert "`conditioning`" in sentence


def test_a_text_encoder_with_more_parts_is_none_of_sdxl(sdxl: FamilyCase) -> None:
    import copy

    from compinv_core.host.family import Family

    clip = copy.copy(sdxl.loaded[1])
    clip.cond_stage_model = copy.copy(clip.cond_stage_model)
    clip.cond_stage_model._modules = {**clip.cond_stage_model._modules, "t5xxl": torch.nn.Identity()}
    assert "text encoder" in complaint(lambda: Family.of("Test Node", clip=clip))


def test_anchors_of_another_text_encoder_are_not_inspected(case: FamilyCase) -> None:
    from compinv_core.host.semantic.words import inspect_word
    from compinv_core.host.text.encoder import load_anchors
    from compinv_core.learning.concept import Concept

    with torch.inference_mode():
        anchors = load_anchors(load_as_executor("tiny")[1], ["dog"])
    word = Concept("unknown", "", case.word(1), widths=dict(case.widths))
    assert "Load Anchors" in complaint(lambda: inspect_word(case.loaded[1], word, anchors))


def test_an_empty_mask_is_named_by_its_photo() -> None:
    from compinv_core.basics.errors import UserError
    from compinv_core.host.family import SDXL
    from compinv_core.host.learning.concepts import checked_photos
    from compinv_core.learning.concept import Concept

    photos = [torch.rand(1, 64, 64, 3), torch.rand(1, 64, 96, 3), torch.rand(1, 64, 96, 3)]
    masks = [torch.ones(1, 64, 64), torch.ones(1, 64, 96), torch.zeros(1, 64, 96)]
    concept = Concept.to_learn({"name": "cat", "superclass": "cat"}, photos, masks)
    with pytest.raises(UserError, match="^mask 3 is empty.*image 3"):
        checked_photos(SDXL, concept)
