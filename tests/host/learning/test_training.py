"""Learning a concept in the real host, in process: what is trained, what is left alone, stopping and resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from compinv_core.training.watch import SCORE, STEADY
from support import checkpoints, host
from support.models.training_case import SIZE, Loaded, photos, short_config, train

pytestmark = pytest.mark.usefixtures("one_thread")
MEASURED = {SCORE, STEADY}


def parameters(loaded: Loaded) -> dict[str, torch.nn.Parameter]:
    model, clip, _ = loaded
    return {**dict(model.model.named_parameters()), **dict(clip.cond_stage_model.named_parameters())}


@pytest.fixture(scope="module")
def uninterrupted(loaded: Loaded) -> Any:
    return train(loaded, short_config(steps=4))


def test_encoding_is_the_same_with_and_without_gradients(loaded: Loaded) -> None:
    from compinv_core.host.learning.concepts import initial_vectors
    from compinv_core.host.learning.session import training_session
    from compinv_core.host.text.encoder import text_encoder_gradients
    from compinv_core.host.text.sentences import TemplateEncoder

    model, clip, _ = loaded
    encoder, start = TemplateEncoder(clip, ["a {class} called {} asleep"], 2, "dog"), initial_vectors(clip, "cat", 2)
    with torch.inference_mode():
        expected = clip.encode_from_tokens_scheduled(clip.tokenize("a dog called cat cat asleep"))[0][0].clone()
    with training_session(model, clip, (1, 4, 8, 8)), text_encoder_gradients(clip):
        vectors = start.clone().requires_grad_(True)
        context = encoder(0, vectors).tokens
        context.square().mean().backward()
    assert torch.allclose(context.detach(), expected, atol=1e-5)
    assert vectors.grad is not None and (vectors.grad.abs().sum(1) > 0).all()


def test_only_the_vectors_get_gradients_and_all_of_them_train(loaded: Loaded) -> None:
    from compinv_core.host.learning.concepts import initial_vectors

    def no_other_gradient(step: int, losses: Any) -> None:
        assert not any(parameter.grad is not None for parameter in parameters(loaded).values())

    result = train(loaded, short_config(steps=2, num_vectors=3), on_step=no_other_gradient)
    before = initial_vectors(loaded[1], "cat", 3)
    moved = (result.concepts[0].vectors - before).abs()
    assert result.concepts[0].vectors.shape == (3, 768) and (moved.mean(1) > 0.005).all()
    assert not torch.equal(result.concepts[0].vectors[0], result.concepts[0].vectors[1])
    assert result.concepts[0].vectors.is_inference() is False


def test_ten_steps_agree_with_a_plain_diffusers_loop() -> None:
    diffusers_inversion = pytest.importorskip("support.models.diffusers_inversion")
    from compinv_core.host.learning.photos import encode_photos
    from compinv_core.training.events import nobody

    model, clip, vae = host.load("small")
    sentences = ["a photo of {}", "a picture showing {} in the middle"]
    config = short_config(steps=10, templates=tuple(sentences), learning_rate=0.005)
    result = train((model, clip, vae), config)
    latents, _ = encode_photos(model, vae, photos(), None, 8, nobody)
    plain = diffusers_inversion.DiffusersInversion("small", checkpoints.build("small"), sentences, "cat", 0.005)
    generator = torch.Generator().manual_seed(config.config.seed)
    losses = []
    for _ in range(10):
        sentence = int(torch.randint(len(sentences), (1,), generator=generator))
        chosen = torch.randint(len(latents), (config.config.batch_size,), generator=generator)
        timesteps = torch.randint(1000, (config.config.batch_size,), generator=generator)
        noise = torch.randn((config.config.batch_size, *latents.shape[1:]), generator=generator)
        losses.append(plain.step(latents[chosen], noise, timesteps, sentence))
    assert max(abs(a - b) for a, b in zip(losses, result.losses, strict=True)) < 1e-5
    assert torch.allclose(result.concepts[0].vectors[0], plain.vector, atol=1e-4)


def test_stop_ends_within_a_step_and_resuming_gives_the_same_bits(
    loaded: Loaded, uninterrupted: Any, tmp_path: Path
) -> None:
    import comfy.model_management

    steps = []

    def press_stop(step: int, losses: Any) -> None:
        steps.append(step)
        if step == 2:
            comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(loaded, short_config(steps=4, save_every=0), run_dir=tmp_path, on_step=press_stop)
    assert steps == [1, 2]
    rest: list[int] = []
    result = train(loaded, short_config(steps=4), run_dir=tmp_path, on_step=lambda step, losses: rest.append(step))
    assert rest == [3, 4]
    assert torch.equal(result.concepts[0].vectors, uninterrupted.concepts[0].vectors)
    assert result.history == uninterrupted.history


def test_another_model_or_photo_does_not_continue_a_run(loaded: Loaded, tmp_path: Path) -> None:
    import comfy.model_management

    from compinv_core.basics.errors import UserError

    def press_stop(step: int, losses: Any) -> None:
        comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(loaded, short_config(steps=4), run_dir=tmp_path, on_step=press_stop)
    with pytest.raises(UserError, match="differs in images, learning_rate"):
        train(loaded, short_config(steps=4, learning_rate=0.1), run_dir=tmp_path, images=photos().flip(2))
    model, clip, vae = loaded
    patched = model.clone()
    key = "diffusion_model.input_blocks.0.0.weight"
    patched.add_patches({key: ("diff", (torch.full((320, 4, 3, 3), 0.01),))})
    with pytest.raises(UserError, match="differs in model"):
        train((patched, clip, vae), short_config(steps=4), run_dir=tmp_path)


def test_previews_show_pictures_and_do_not_change_the_result(loaded: Loaded, uninterrupted: Any) -> None:
    import comfy.utils

    shown: list[tuple[int, int, Any]] = []
    comfy.utils.set_progress_bar_global_hook(
        lambda value, total, preview, node_id=None: shown.append((value, total, preview))
    )
    try:
        result = train(loaded, short_config(steps=4, preview_every=2))
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    pictures = [(value, total, preview) for value, total, preview in shown if preview is not None]
    assert [(value, total) for value, total, _ in pictures] == [(2, 4), (4, 4)]
    assert all(kind == "JPEG" and picture.size == (SIZE, SIZE) for _, _, (kind, picture, _) in pictures)
    assert pictures[0][2][1].tobytes() != pictures[1][2][1].tobytes()
    assert torch.equal(result.concepts[0].vectors, uninterrupted.concepts[0].vectors)


def test_no_preview_moves_the_networks_in_training(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import comfy.model_management
    import comfy.utils

    # As with --disable-smart-memory: loading one model unloads all others.
    monkeypatch.setattr(comfy.model_management, "DISABLE_SMART_MEMORY", True)
    shown: list[Any] = []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, node_id=None: shown.append(preview))
    try:
        train(loaded, short_config(steps=4, preview_every=2))
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    assert shown and not any(shown)
    assert caplog.text.count("No previews") == 1


def test_anchors_enter_the_loss_and_the_metadata(loaded: Loaded, uninterrupted: Any) -> None:
    from compinv_core.host.text.encoder import load_anchors

    anchors = load_anchors(loaded[1], ["dog", "bird", "teddy bear"])
    result = train(loaded, short_config(steps=4, recode_every=2), anchors=anchors)
    assert set(result.history) == {"loss", "reconstruction", "anchor"} | MEASURED
    total, reconstruction, anchor = (result.history[key][3] for key in ("loss", "reconstruction", "anchor"))
    assert total == pytest.approx(0.05 * reconstruction + 0.95 * anchor, rel=1e-5) and anchor > 0
    assert '"cat"' in result.concepts[0].metadata["anchors"]
    assert result.concepts[0].metadata["method"] == "textual inversion with semantic inversion"
    assert uninterrupted.concepts[0].metadata["method"] == "textual inversion"
    assert uninterrupted.concepts[0].metadata["anchor_weight"] == "0.0"


def test_words_beside_the_learned_one_are_found_whatever_its_length(loaded: Loaded) -> None:
    from compinv_core.host.text.sentences import read_surroundings

    clip = loaded[1]
    # Start, a, three vectors, teddy, bear, and, a, boat; start, a, teddy, bear, and, a, boat.
    long = read_surroundings(clip, ("a photo of {} {class}",), ["boat", "dog"], 3, "teddy bear")
    assert [(list(here), list(there)) for here, there in long.places] == [([1, 7, 8, 9], [1, 4, 5, 6])] * 2
    short = read_surroundings(clip, ("a photo of {}",), ["teddy bear"], 2, "cat")
    assert [(list(here), list(there)) for here, there in short.places] == [([1, 4, 5, 6, 7], [1, 3, 4, 5, 6])]


def test_the_context_loss_is_none_where_the_class_noun_stands_and_enters_the_training(
    loaded: Loaded, uninterrupted: Any
) -> None:
    from compinv_core.host.learning.concepts import initial_vectors
    from compinv_core.host.learning.session import training_session
    from compinv_core.host.text.encoder import load_anchors, text_encoder_gradients
    from compinv_core.host.text.sentences import read_surroundings

    model, clip, _ = loaded
    words = read_surroundings(clip, ("a photo of {}",), ["dog", "teddy bear"], 1, "cat")
    noun, other = (initial_vectors(clip, word, 1) for word in ("cat", "bird"))
    with training_session(model, clip, (1, 4, 8, 8)), text_encoder_gradients(clip):
        vectors = other.clone().requires_grad_(True)
        words.loss(1, vectors).backward()
        assert abs(float(words.loss(1, noun))) < 1e-5 < float(words.loss(1, other))
    assert vectors.grad is not None and vectors.grad.abs().sum() > 0

    result = train(
        loaded, short_config(steps=2, anchor_weight=0.0, context_weight=2.0), anchors=load_anchors(clip, ["dog"])
    )
    assert set(result.history) == {"loss", "reconstruction", "context"} | MEASURED
    total, reconstruction, context = (result.history[key][1] for key in ("loss", "reconstruction", "context"))
    assert total == pytest.approx(reconstruction + 2 * context, rel=1e-5) and context > 0
    # No other draw than without.
    assert result.history["reconstruction"][0] == uninterrupted.losses[0]


def test_a_word_on_the_sphere_has_the_vocabularys_length_and_steps_of_the_rate(loaded: Loaded) -> None:
    from compinv_core.host.learning.concepts import initial_vectors
    from compinv_core.host.text.encoder import load_anchors
    from compinv_core.host.text.vocabulary import usual_norm

    anchors, start = load_anchors(loaded[1], ["dog"]), initial_vectors(loaded[1], "cat", 1)
    result = train(loaded, short_config(steps=1, hold="sphere", learning_rate=0.1), anchors=anchors)
    (concept,) = result.concepts
    assert float(concept.vectors.norm()) == pytest.approx(usual_norm(loaded[1]), rel=1e-4)
    assert float(torch.cosine_similarity(concept.vectors, start)) == pytest.approx(1 / (1 + 0.1**2) ** 0.5, rel=1e-4)
    assert set(result.history) == {"loss", "reconstruction"} | MEASURED
    assert concept.metadata["anchor_weight"] == "0.0"


def test_full_anchor_weight_keeps_a_token_on_its_superclass(loaded: Loaded) -> None:
    from compinv_core.host.text.encoder import load_anchors

    anchors = load_anchors(loaded[1], ["dog", "bird"])
    result = train(loaded, short_config(steps=3, anchor_weight=1.0), anchors=anchors)
    assert torch.allclose(result.concepts[0].vectors, load_anchors(loaded[1], ["cat"]).vectors, atol=1e-6)


def test_mask_weights_the_reconstruction(loaded: Loaded, uninterrupted: Any) -> None:
    whole = torch.ones(2, SIZE, SIZE)
    even = train(loaded, short_config(steps=4), mask=whole)
    assert even.losses == pytest.approx(uninterrupted.losses, rel=1e-5)
    half = whole.clone()
    half[:, :, : SIZE // 2] = 0
    masked = train(loaded, short_config(steps=4), mask=half)
    assert masked.losses[0] != pytest.approx(uninterrupted.losses[0], rel=1e-3)
    official = short_config(steps=4, preset="official_2024")
    assert train(loaded, official, mask=half).losses == train(loaded, official).losses
