"""What a training in the real host is given: targets, words, files, and one sentence for every bad input."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from support import checkpoints
from support.models.training_case import SIZE, Loaded, resampled, short_config, train


@pytest.mark.parametrize("prediction", ["eps", "v_prediction"])
def test_target_is_what_denoises_to_the_photo(loaded: Loaded, prediction: str) -> None:
    from compinv_core.host.learning.session import training_session
    from compinv_core.learning.condition import Condition

    model, clip, _ = loaded
    if prediction == "v_prediction":
        model = resampled(model, "V_PREDICTION")
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 4, 8, 8, generator=generator)
    timesteps = torch.tensor([50, 700])
    with training_session(model, clip, (2, 4, 8, 8)) as (session, _), torch.no_grad():
        guess, target = session.denoise(latents, noise, timesteps, Condition(torch.zeros(2, 77, 768)))
        sampling = model.get_model_object("model_sampling")
        sigma = sampling.sigmas.clone()[timesteps]
        noisy = sampling.noise_scaling(sigma, noise, latents)
        assert torch.allclose(sampling.calculate_denoised(sigma, target, noisy), latents, atol=1e-4)
    assert guess.shape == target.shape and session.num_timesteps == 1000


def test_unknown_prediction_type_gets_a_sentence(loaded: Loaded) -> None:
    from compinv_core.basics.errors import UserError

    model, clip, vae = loaded
    with pytest.raises(UserError, match="neither noise nor velocity"):
        train((resampled(model, "X0"), clip, vae), short_config(steps=1))


def bad_images(change: Callable[[torch.Tensor], Any]) -> dict[str, Any]:
    return {"images": change(torch.rand(2, SIZE, SIZE, 3))}


BAD_INPUTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"init_word": "qwzxv"}, {}, 'init_word: "qwzxv" is not a word'),
    ({"superclass": "blarghfnx"}, {}, 'superclass: "blarghfnx" is not a word'),
    ({"superclass": "!!!"}, {}, 'superclass: "!!!" is not a word'),
    ({}, bad_images(lambda x: x[:0]), "images is empty"),
    ({}, bad_images(lambda x: [x, x[:, :, :56]]), "different sizes"),
    ({}, bad_images(lambda x: x * float("nan")), "NaN"),
    ({}, {"mask": torch.ones(2, 32, 32)}, "mask is 32x32 but the images are 64x64"),
    ({}, {"mask": torch.ones(1, SIZE, SIZE)}, "1 masks for 2 images"),
    ({"templates": ("word " * 80 + "{}",)}, {}, "too long"),
]


@pytest.mark.parametrize(("settings", "options", "sentence"), BAD_INPUTS)
def test_bad_input_gets_a_sentence_at_once(
    loaded: Loaded, tmp_path: Path, settings: dict, options: dict, sentence: str
) -> None:
    from compinv_core.basics.errors import UserError

    start = time.monotonic()
    with pytest.raises(UserError, match=sentence):
        train(loaded, short_config(**settings), run_dir=tmp_path / "run", **options)
    assert time.monotonic() - start < 20 and not (tmp_path / "run").exists()


def test_an_unsupported_model_gets_a_sentence(loaded: Loaded) -> None:
    import comfy.sd

    from compinv_core.basics.errors import UserError

    refiner = comfy.sd.load_checkpoint_guess_config(str(checkpoints.build("refiner")), output_clip=False)[0]
    _, clip, vae = loaded
    with pytest.raises(UserError, match="only Stable Diffusion 1"):
        train((refiner, clip, vae), short_config(steps=1))


def test_a_stranger_embedding_of_the_same_name_is_refused_first(loaded: Loaded, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from compinv_core.basics.errors import UserError

    theirs = tmp_path / "x.safetensors"
    save_file({"emb_params": torch.ones(1, 768)}, theirs)
    with pytest.raises(UserError, match="not made by CompInv"):
        train(
            loaded,
            short_config(steps=1, name="x"),
            embedding_folder=tmp_path,
            on_step=lambda step, losses: pytest.fail("trained"),
        )


@pytest.mark.parametrize(
    "word",
    [
        "surfboard", "fire hydrant", "teddy bear", "labradoodle", "tv", "T-shirt",
        "café", "cafe\u0301", "Pokémon", "jalapeño", "piñata", "crème brûlée", "smörgåsbord",
        "shiba inu", "axolotl", "didgeridoo", "quokka", "okapi", "tuatara", "djembe", "pterodactyl", "rhododendron",
        "oryx", "tchotchke", "xoloitzcuintli", "3d printer", "mp3 player", "boeing 747", "jack-o'-lantern",
        "child’s toy",
    ],
)  # fmt: skip
def test_ordinary_words_are_known(loaded: Loaded, word: str) -> None:
    from compinv_core.host.text.encoder import load_anchors, token_embeddings, word_token_ids
    from compinv_core.host.text.vocabulary import check_known_word

    _, clip, _ = loaded
    check_known_word(clip, word, "superclass")
    ids = word_token_ids(clip, word)
    anchors = load_anchors(clip, [word])
    assert anchors.token_ids == (ids,)
    assert torch.allclose(anchors.vectors[0], token_embeddings(clip, ids).mean(0))


@pytest.mark.parametrize(
    "word",
    [
        "qwzxv", "blarghfnx", "xqzt", "zxcvbn", "hjkl", "sdfghj", "dfghdfgh", "mnbvcx", "qweasd", "xjkzzz", "wqiqzhg",
        "kghaxidwh", "plokij", "oiwejf", "cat qwzxv", "q1w2e3r4", "3", "3 4", "!!!", "cat,", "(cat)", "embedding:cat",
        "", "cat\nxqzt", "кот", "猫", "ネコ", "\x00", "🐱",
    ],
)  # fmt: skip
def test_what_is_no_word_is_refused_in_legible_letters(loaded: Loaded, word: str) -> None:
    from compinv_core.basics.errors import UserError
    from compinv_core.host.text.vocabulary import check_known_word

    with pytest.raises(UserError, match="^superclass: .* is not a word that the text encoder knows") as caught:
        check_known_word(loaded[1], word, "superclass")
    message = str(caught.value)
    # Only the letters of the word itself, or escapes of them, beside plain ones.
    assert message.isprintable() and not [letter for letter in message if letter > "~" and letter not in word]


def test_tokens_are_named_in_legible_letters(loaded: Loaded) -> None:
    from compinv_core.host.text.encoder import token_embeddings, word_token_ids
    from compinv_core.host.text.vocabulary import NearestToken, read_letters

    nearest = NearestToken(loaded[1])
    for word in ("cat", "café", "pokémon"):
        (token,) = word_token_ids(loaded[1], word)
        assert nearest(token_embeddings(loaded[1], [token])[0]) == (word, pytest.approx(1.0))
    names = loaded[1].tokenizer.clip_l.inv_vocab
    for word in ("кот", "猫", "smörgåsbord", "🐱"):
        assert "".join(read_letters(names[i] for i in word_token_ids(loaded[1], word))) == word


def test_start_of_several_vectors(loaded: Loaded) -> None:
    from compinv_core.host.learning.concepts import initial_vectors
    from compinv_core.host.text.encoder import token_embeddings, word_token_ids

    _, clip, _ = loaded
    teddy, bear = token_embeddings(clip, word_token_ids(clip, "teddy bear"))
    mean = (teddy + bear) / 2
    assert torch.allclose(initial_vectors(clip, "teddy bear", 1), mean[None])
    assert torch.allclose(initial_vectors(clip, "teddy bear", 3), torch.stack([teddy, bear, mean]))


def test_saved_embedding_is_read_by_host_and_diffusers_and_encodes_as_in_training(
    loaded: Loaded,
) -> None:
    import comfy.sd1_clip
    import folder_paths
    from safetensors.torch import load_file

    from compinv_core.host.folders import embedding_path
    from compinv_core.host.text.sentences import TemplateEncoder
    from compinv_core.learning.concept import Concept
    from compinv_core.learning.embedding_file import write_concept

    concept = Concept("my-cat", "cat", torch.randn(1, 768, generator=torch.Generator().manual_seed(0)))
    path = embedding_path(concept.name)
    path.unlink(missing_ok=True)
    write_concept(concept, path)
    read = comfy.sd1_clip.load_embed(concept.name, folder_paths.get_folder_paths("embeddings"), 768, "clip_l")
    assert torch.equal(read, concept.vectors)

    _, clip, _ = loaded
    with torch.inference_mode():
        (prompted, _), *_ = clip.encode_from_tokens_scheduled(clip.tokenize(f"a photo of {concept.prompt_word} asleep"))
        trained = TemplateEncoder(clip, ["a photo of {} asleep"], 1, "cat")(0, concept.vectors).tokens
    assert torch.equal(prompted, trained)

    loaders = pytest.importorskip("diffusers.loaders.textual_inversion")
    tokens, embeddings = loaders.TextualInversionLoaderMixin._retrieve_tokens_and_embeddings(
        [None], [load_file(path)], clip.tokenizer.clip_l.tokenizer
    )
    assert tokens == [f"<{concept.name}>"] and torch.equal(embeddings[0], concept.vectors)
