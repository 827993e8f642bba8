"""Learning a concept in the real host, in process: what is trained, what is left alone, stopping and resuming."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from support import checkpoints, host, locations

SIZE = 64
TRAINING_SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from support import host
host.start()
import torch
torch.set_num_threads(1)
from support.training_case import photos, short_config
from compinv_core.host.training import train_concept
train_concept(*host.load("tiny"), photos(), short_config(steps=50, save_every=1), run_dir=Path(sys.argv[1]),
              on_step=lambda step, losses: print("step", step, flush=True))
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums over several threads may differ in the last bit from run to run."""
    host.start()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE loaded as the executor does, in inference mode."""
    base = host.start()
    import comfy.sd

    with torch.inference_mode():
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
            str(checkpoints.build("tiny")), embedding_directory=[str(base / "models" / "embeddings")]
        )
    return model, clip, vae


def train(loaded: tuple[Any, Any, Any], config: Any, **options: Any) -> Any:
    """Call `train_concept` in inference mode, as the executor does."""
    from compinv_core.host.training import train_concept
    from support.training_case import photos

    with torch.inference_mode():
        return train_concept(*loaded, options.pop("images", photos()), config, **options)


def sample(model: Any, clip: Any) -> torch.Tensor:
    import comfy.sample

    with torch.inference_mode():
        positive = clip.encode_from_tokens_scheduled(clip.tokenize("a photo of a (cat:1.2)"))
        negative = clip.encode_from_tokens_scheduled(clip.tokenize(""))
        latent = torch.zeros(1, 4, 8, 8)
        noise = comfy.sample.prepare_noise(latent, 1)
        return comfy.sample.sample(
            model, noise, 2, 5.0, "euler", "normal", positive, negative, latent, disable_pbar=True
        ).clone()


def resampled(model: Any, prediction: str) -> Any:
    """Return the model as the host's ModelSamplingDiscrete node patches it."""
    import comfy.model_sampling

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, getattr(comfy.model_sampling, prediction)):
        pass

    patched = model.clone()
    patched.add_object_patch("model_sampling", Sampling(model.model.model_config))
    return patched


def parameters(loaded: tuple[Any, Any, Any]) -> dict[str, torch.nn.Parameter]:
    model, clip, _ = loaded
    return {**dict(model.model.named_parameters()), **dict(clip.cond_stage_model.named_parameters())}


@pytest.fixture(scope="module")
def uninterrupted(loaded: tuple[Any, Any, Any]) -> Any:
    from support.training_case import short_config

    return train(loaded, short_config(steps=4))


def test_model_and_text_encoder_are_left_as_they_were(loaded: tuple[Any, Any, Any]) -> None:
    import comfy.model_management

    from support.training_case import short_config

    model, clip, _ = loaded
    image = sample(model, clip)
    train(loaded, short_config(steps=1))
    once = parameters(loaded)
    values = {name: parameter.detach().clone() for name, parameter in once.items()}

    def fail(step: int, losses: Any) -> None:
        raise RuntimeError("something broke")

    def cancel(step: int, losses: Any) -> None:
        comfy.model_management.interrupt_current_processing()

    train(loaded, short_config(steps=2))
    with pytest.raises(RuntimeError, match="something broke"):
        train(loaded, short_config(steps=2), on_step=fail)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(loaded, short_config(steps=2), on_step=cancel)

    assert torch.equal(sample(model, clip), image)
    assert comfy.model_management.in_training is False
    after = parameters(loaded)
    assert all(after[name] is parameter and torch.equal(parameter, values[name]) for name, parameter in once.items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in after.values())
    modules = [*model.model.modules(), *clip.cond_stage_model.modules()]
    assert not any("forward" in vars(module) or module._forward_pre_hooks for module in modules)
    assert not model.patches and not model.object_patches and not model.wrappers


def test_encoding_is_the_same_with_and_without_gradients(loaded: tuple[Any, Any, Any]) -> None:
    from compinv_core.host.text_encoder import TemplateEncoder, text_encoder_gradients
    from compinv_core.host.training import initial_vectors
    from compinv_core.host.training_session import training_session

    model, clip, _ = loaded
    encoder, start = TemplateEncoder(clip, ["a photo of {} asleep"], 2), initial_vectors(clip, "cat", 2)
    with torch.inference_mode():
        expected = clip.encode_from_tokens_scheduled(clip.tokenize("a photo of cat cat asleep"))[0][0].clone()
    with training_session(model, clip, (1, 4, 8, 8)), text_encoder_gradients(clip):
        vectors = start.clone().requires_grad_(True)
        context = encoder(0, vectors)
        context.square().mean().backward()
    assert torch.allclose(context.detach(), expected, atol=1e-5)
    assert vectors.grad is not None and (vectors.grad.abs().sum(1) > 0).all()


def test_only_the_vectors_get_gradients_and_all_of_them_train(loaded: tuple[Any, Any, Any]) -> None:
    from compinv_core.host.training import initial_vectors
    from support.training_case import short_config

    def no_other_gradient(step: int, losses: Any) -> None:
        assert not any(parameter.grad is not None for parameter in parameters(loaded).values())

    result = train(loaded, short_config(steps=2, num_vectors=3), on_step=no_other_gradient)
    before = initial_vectors(loaded[1], "cat", 3)
    moved = (result.concept.vectors - before).abs()
    assert result.concept.vectors.shape == (3, 768) and (moved.mean(1) > 0.005).all()
    assert not torch.equal(result.concept.vectors[0], result.concept.vectors[1])
    assert result.concept.vectors.is_inference() is False


def test_ten_steps_agree_with_a_plain_diffusers_loop() -> None:
    diffusers_inversion = pytest.importorskip("support.diffusers_inversion")
    from compinv_core.host.training_inputs import encode_photos
    from support.training_case import short_config

    model, clip, vae = host.load("small")
    sentences = ["a photo of {}", "a picture showing {} in the middle"]
    config = short_config(steps=10, templates=tuple(sentences), learning_rate=0.005)
    from support.training_case import photos

    result = train((model, clip, vae), config)
    latents, _ = encode_photos(model, vae, photos(), None)
    plain = diffusers_inversion.DiffusersInversion("small", checkpoints.build("small"), sentences, "cat", 0.005)
    generator = torch.Generator().manual_seed(config.seed)
    losses = []
    for _ in range(10):
        sentence = int(torch.randint(len(sentences), (1,), generator=generator))
        chosen = torch.randint(len(latents), (config.batch_size,), generator=generator)
        timesteps = torch.randint(1000, (config.batch_size,), generator=generator)
        noise = torch.randn((config.batch_size, *latents.shape[1:]), generator=generator)
        losses.append(plain.step(latents[chosen], noise, timesteps, sentence))
    assert max(abs(a - b) for a, b in zip(losses, result.losses, strict=True)) < 1e-5
    assert torch.allclose(result.concept.vectors[0], plain.vector, atol=1e-4)


def test_stop_ends_within_a_step_and_resuming_gives_the_same_bits(
    loaded: tuple[Any, Any, Any], uninterrupted: Any, tmp_path: Path
) -> None:
    import comfy.model_management

    from support.training_case import short_config

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
    assert torch.equal(result.concept.vectors, uninterrupted.concept.vectors)
    assert result.history == uninterrupted.history


def test_killed_and_resumed_gives_the_same_bits(tmp_path: Path) -> None:
    from compinv_core.host.training import train_concept
    from support.training_case import photos, short_config

    script = TRAINING_SCRIPT.format(tests=str(locations.REPOSITORY / "tests"))
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        if line.strip() == "step 3":
            process.send_signal(signal.SIGKILL)
            break
    process.wait(60)
    assert process.returncode == -signal.SIGKILL, process.stderr.read()
    steps: list[int] = []
    resumed = train_concept(
        *host.load("tiny"), photos(), short_config(steps=6), run_dir=tmp_path, on_step=lambda s, losses: steps.append(s)
    )
    assert steps[0] in (3, 4) and steps[-1] == 6  # killed before or after the third save
    straight = train_concept(*host.load("tiny"), photos(), short_config(steps=6))
    assert torch.equal(resumed.concept.vectors, straight.concept.vectors)
    assert resumed.history == straight.history


def test_another_model_or_photo_does_not_continue_a_run(loaded: tuple[Any, Any, Any], tmp_path: Path) -> None:
    import comfy.model_management

    from compinv_core.errors import UserError
    from support.training_case import photos, short_config

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


def test_previews_show_pictures_and_do_not_change_the_result(loaded: tuple[Any, Any, Any], uninterrupted: Any) -> None:
    import comfy.utils

    from support.training_case import short_config

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
    assert torch.equal(result.concept.vectors, uninterrupted.concept.vectors)


def test_anchors_enter_the_loss_and_the_metadata(loaded: tuple[Any, Any, Any], uninterrupted: Any) -> None:
    from compinv_core.host.text_encoder import load_anchors
    from support.training_case import short_config

    anchors = load_anchors(loaded[1], ["dog", "bird", "teddy bear"])
    result = train(loaded, short_config(steps=4, recode_every=2), anchors=anchors)
    assert set(result.history) == {"loss", "reconstruction", "anchor"}
    total, reconstruction, anchor = (result.history[key][3] for key in ("loss", "reconstruction", "anchor"))
    assert total == pytest.approx(0.05 * reconstruction + 0.95 * anchor, rel=1e-5) and anchor > 0
    assert '"cat"' in result.concept.metadata["anchors"]
    assert result.concept.metadata["method"] == "textual inversion with semantic inversion"
    assert uninterrupted.concept.metadata["method"] == "textual inversion"
    assert uninterrupted.concept.metadata["anchor_weight"] == "0.0"


def test_full_anchor_weight_keeps_a_token_on_its_superclass(loaded: tuple[Any, Any, Any]) -> None:
    from compinv_core.host.text_encoder import load_anchors
    from support.training_case import short_config

    anchors = load_anchors(loaded[1], ["dog", "bird"])
    result = train(loaded, short_config(steps=3, anchor_weight=1.0), anchors=anchors)
    assert torch.allclose(result.concept.vectors, load_anchors(loaded[1], ["cat"]).vectors, atol=1e-6)


def test_mask_weights_the_reconstruction(loaded: tuple[Any, Any, Any], uninterrupted: Any) -> None:
    from support.training_case import short_config

    whole = torch.ones(2, SIZE, SIZE)
    even = train(loaded, short_config(steps=4), mask=whole)
    assert even.losses == pytest.approx(uninterrupted.losses, rel=1e-5)
    half = whole.clone()
    half[:, :, : SIZE // 2] = 0
    masked = train(loaded, short_config(steps=4), mask=half)
    assert masked.losses[0] != pytest.approx(uninterrupted.losses[0], rel=1e-3)
    official = train(loaded, short_config(steps=4, preset="official_2024"), mask=half)
    assert official.losses == uninterrupted.losses


@pytest.mark.parametrize("prediction", ["eps", "v_prediction"])
def test_target_is_what_denoises_to_the_photo(loaded: tuple[Any, Any, Any], prediction: str) -> None:
    from compinv_core.host.training_session import training_session

    model, clip, _ = loaded
    if prediction == "v_prediction":
        model = resampled(model, "V_PREDICTION")
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 4, 8, 8, generator=generator)
    timesteps = torch.tensor([50, 700])
    with training_session(model, clip, (2, 4, 8, 8)) as (session, _), torch.no_grad():
        guess, target = session.denoise(latents, noise, timesteps, torch.zeros(2, 77, 768))
        sampling = model.get_model_object("model_sampling")
        sigma = sampling.sigmas.clone()[timesteps]
        noisy = sampling.noise_scaling(sigma, noise, latents)
        assert torch.allclose(sampling.calculate_denoised(sigma, target, noisy), latents, atol=1e-4)
    assert guess.shape == target.shape and session.num_timesteps == 1000


def test_unknown_prediction_type_gets_a_sentence(loaded: tuple[Any, Any, Any]) -> None:
    from compinv_core.errors import UserError
    from support.training_case import short_config

    model, clip, vae = loaded
    with pytest.raises(UserError, match="neither noise nor velocity"):
        train((resampled(model, "X0"), clip, vae), short_config(steps=1))


def bad_images(change: Callable[[torch.Tensor], Any]) -> dict[str, Any]:
    return {"images": change(torch.rand(2, SIZE, SIZE, 3))}


BAD_INPUTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"init_word": "qwzxv"}, {}, "init_word: 'qwzxv' is not a word"),
    ({"superclass": "blarghfnx"}, {}, "superclass: 'blarghfnx' is not a word"),
    ({"superclass": "!!!"}, {}, "superclass: '!!!' is not a word"),
    ({}, bad_images(lambda x: x[:0]), "images is empty"),
    ({}, bad_images(lambda x: [x, x[:, :, :56]]), "different sizes"),
    ({}, bad_images(lambda x: x * float("nan")), "NaN"),
    ({}, {"mask": torch.ones(2, 32, 32)}, "mask is 32x32 but the images are 64x64"),
    ({}, {"mask": torch.ones(1, SIZE, SIZE)}, "1 masks for 2 images"),
    ({"templates": ("word " * 80 + "{}",)}, {}, "too long"),
]


@pytest.mark.parametrize(("settings", "options", "sentence"), BAD_INPUTS)
def test_bad_input_gets_a_sentence_at_once(
    loaded: tuple[Any, Any, Any], tmp_path: Path, settings: dict, options: dict, sentence: str
) -> None:
    from compinv_core.errors import UserError
    from support.training_case import short_config

    start = time.monotonic()
    with pytest.raises(UserError, match=sentence):
        train(loaded, short_config(**settings), run_dir=tmp_path / "run", **options)
    assert time.monotonic() - start < 20 and not (tmp_path / "run").exists()


def test_sdxl_gets_a_sentence(loaded: tuple[Any, Any, Any]) -> None:
    import comfy.sd

    from compinv_core.errors import UserError
    from support.training_case import short_config

    sdxl = comfy.sd.load_checkpoint_guess_config(str(checkpoints.build("sdxl")), output_clip=False)[0]
    _, clip, vae = loaded
    with pytest.raises(UserError, match="only Stable Diffusion 1"):
        train((sdxl, clip, vae), short_config(steps=1))


def test_a_stranger_embedding_of_the_same_name_is_refused_first(loaded: tuple[Any, Any, Any], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from compinv_core.errors import UserError
    from support.training_case import short_config

    theirs = tmp_path / "x.safetensors"
    save_file({"emb_params": torch.ones(1, 768)}, theirs)
    with pytest.raises(UserError, match="not made by CompInv"):
        train(loaded, short_config(steps=1), embedding_path=theirs, on_step=lambda step, losses: pytest.fail("trained"))


@pytest.mark.parametrize("word", ["surfboard", "fire hydrant", "teddy bear", "labradoodle", "tv", "T-shirt"])
def test_ordinary_words_are_known(loaded: tuple[Any, Any, Any], word: str) -> None:
    from compinv_core.host.text_encoder import check_known_word, load_anchors, token_embeddings, word_token_ids

    _, clip, _ = loaded
    check_known_word(clip, word, "superclass")
    ids = word_token_ids(clip, word)
    anchors = load_anchors(clip, [word])
    assert anchors.token_ids == (ids,)
    assert torch.allclose(anchors.vectors[0], token_embeddings(clip, ids).mean(0))


def test_start_of_several_vectors(loaded: tuple[Any, Any, Any]) -> None:
    from compinv_core.host.text_encoder import token_embeddings, word_token_ids
    from compinv_core.host.training import initial_vectors

    _, clip, _ = loaded
    teddy, bear = token_embeddings(clip, word_token_ids(clip, "teddy bear"))
    mean = (teddy + bear) / 2
    assert torch.allclose(initial_vectors(clip, "teddy bear", 1), mean[None])
    assert torch.allclose(initial_vectors(clip, "teddy bear", 3), torch.stack([teddy, bear, mean]))


def test_saved_embedding_is_read_by_host_and_diffusers_and_encodes_as_in_training(
    loaded: tuple[Any, Any, Any], uninterrupted: Any
) -> None:
    import comfy.sd1_clip
    import folder_paths
    from safetensors.torch import load_file

    from compinv_core.embedding_file import write_concept
    from compinv_core.host.folders import embedding_path
    from compinv_core.host.text_encoder import TemplateEncoder

    concept = uninterrupted.concept
    path = embedding_path(concept.name)
    write_concept(concept, path)
    read = comfy.sd1_clip.load_embed(concept.name, folder_paths.get_folder_paths("embeddings"), 768, "clip_l")
    assert torch.equal(read, concept.vectors)

    _, clip, _ = loaded
    with torch.inference_mode():
        (prompted, _), *_ = clip.encode_from_tokens_scheduled(clip.tokenize(f"a photo of {concept.prompt_word} asleep"))
        trained = TemplateEncoder(clip, ["a photo of {} asleep"], 1)(0, concept.vectors)
    assert torch.equal(prompted, trained)

    loaders = pytest.importorskip("diffusers.loaders.textual_inversion")
    tokens, embeddings = loaders.TextualInversionLoaderMixin._retrieve_tokens_and_embeddings(
        [None], [load_file(path)], clip.tokenizer.clip_l.tokenizer
    )
    assert tokens == [f"<{concept.name}>"] and torch.equal(embeddings[0], concept.vectors)
