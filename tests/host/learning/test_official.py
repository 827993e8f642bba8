"""The preset official_2024 in the real host: posterior samples, mirrored photos, one vector, and runs from before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from support import checkpoints
from support.models.training_case import Loaded, photos, short_config, short_tuning, train, tune

pytestmark = pytest.mark.usefixtures("one_thread")
OFFICIAL = {"preset": "official_2024"}


@pytest.fixture(scope="module")
def with_posterior(loaded: Loaded) -> Loaded:
    """The tiny checkpoint with a random autoencoder of Stable Diffusion's own kind."""
    import comfy.sd
    from comfy.ldm.models.autoencoder import AutoencoderKL

    shape = {
        "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
        "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.manual_seed(3)
        autoencoder = AutoencoderKL(ddconfig=shape, embed_dim=4)
        checkpoints.initialise(autoencoder)
    with torch.inference_mode():
        vae = comfy.sd.VAE(sd=autoencoder.state_dict())
    return (*loaded[:2], vae)


def test_the_spread_is_that_of_the_posterior_and_the_mean_stays(with_posterior: Loaded) -> None:
    from compinv_core.host.learning.photos import encode_photos, encode_spread, samples_posterior
    from compinv_core.learning.settings import InversionConfig
    from compinv_core.training.events import nobody

    model, _, vae = with_posterior
    assert samples_posterior(InversionConfig(**OFFICIAL), vae) and not samples_posterior(InversionConfig(), vae)
    before, _ = encode_photos(model, vae, photos(), None, 8, nobody)
    spread = encode_spread(model, vae, photos(), 8, nobody)
    after, _ = encode_photos(model, vae, photos(), None, 8, nobody)
    network = vae.first_stage_model
    with torch.no_grad():
        moments = network.quant_conv(network.encoder((photos() * 2 - 1).movedim(-1, 1).to(vae.vae_dtype))).float()
    mean, log_variance = moments.chunk(2, dim=1)
    assert torch.equal(before, after)
    torch.testing.assert_close(after, mean * 0.18215, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(spread, (log_variance / 2).exp() * 0.18215, rtol=1e-4, atol=1e-5)
    assert not spread.is_inference() and spread.std() > 0


def test_the_posterior_is_sampled_under_the_preset_only(with_posterior: Loaded, caplog: Any) -> None:
    narrow = short_config(steps=1, **OFFICIAL)
    sampled = train(with_posterior, narrow).losses
    assert sampled != train(with_posterior, short_config(steps=1)).losses
    assert sampled == train(with_posterior, narrow).losses and "mean alone" not in caplog.text


def test_without_a_posterior_the_mean_is_trained_on_and_the_log_says_so(loaded: Loaded, caplog: Any) -> None:
    official = train(loaded, short_config(steps=1, **OFFICIAL))
    assert caplog.text.count("this autoencoder (TAESD) gives its mean alone, on which the training is done.") == 1
    # Nothing is drawn beside what every training draws, and a decay shows only after the first step.
    assert official.losses == train(loaded, short_config(steps=1)).losses


@pytest.mark.parametrize("method", ["custom_diffusion", "dreambooth"])
def test_photos_and_class_pictures_are_mirrored_where_the_model_is_trained(loaded: Loaded, method: str) -> None:
    from compinv_core.host.learning.photos import encode_photos
    from compinv_core.host.learning.run import InversionRun
    from compinv_core.learning.concept import Concept
    from compinv_core.training.events import nobody

    model, _, vae = loaded
    tuning, word = short_tuning(method, **OFFICIAL), short_config(**OFFICIAL)
    plain, mirrored = (encode_photos(model, vae, pixels, None, 8, nobody)[0] for pixels in (photos(), photos().flip(2)))
    for case, expected in ((tuning, torch.cat([plain, mirrored])), (word, plain)):
        run = InversionRun(*loaded, case.config, [Concept.to_learn(case.words, photos(), class_images=photos())])
        encoded, _ = run._encoded(photos(), None, nobody)
        assert torch.equal(encoded.latents, expected) and encoded.mirrored == (case is tuning)
    # One picture each: only which of the eight are mirrored is drawn, and that is seen in both losses.
    config = short_tuning(method, steps=1, batch_size=8, num_class_images=1, **OFFICIAL)
    picture = photos()[:1]
    even = (picture + picture.flip(2)) / 2
    losses = [
        tune(loaded, config, images=one, class_images=other).history
        for one, other in ((picture, even), (picture.flip(2), even), (even, picture), (even, picture.flip(2)))
    ]
    assert losses[0]["reconstruction"] != losses[1]["reconstruction"] and losses[2]["prior"] != losses[3]["prior"]


def test_a_stopped_run_goes_on_to_the_same_bits(with_posterior: Loaded, tmp_path: Path) -> None:
    import comfy.model_management

    config = short_tuning("custom_diffusion", steps=3, batch_size=2, **OFFICIAL)

    def press_stop(step: int, losses: Any) -> None:
        if step == 2:
            comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        tune(with_posterior, config, run_dir=tmp_path, on_step=press_stop)
    resumed, straight = tune(with_posterior, config, run_dir=tmp_path), tune(with_posterior, config)
    assert resumed.history == straight.history
    assert torch.equal(resumed.concepts[0].vectors, straight.concepts[0].vectors)


def test_one_vector_is_learned_whatever_is_asked_for(loaded: Loaded, tmp_path: Path, caplog: Any) -> None:
    from compinv_core.learning.embedding_file import read_concept

    caplog.set_level("INFO", "compinv")
    three = train(loaded, short_config(steps=2, num_vectors=3, **OFFICIAL), embedding_folder=tmp_path)
    assert "learns one vector for my-cat instead of 3" in caplog.text
    assert read_concept(tmp_path / "my-cat.safetensors").vectors.shape == (1, 768)
    one = train(loaded, short_config(steps=2, **OFFICIAL))
    assert torch.equal(three.concepts[0].vectors, one.concepts[0].vectors)


def test_a_run_of_the_preset_from_before_is_refused(loaded: Loaded, tmp_path: Path) -> None:
    import comfy.model_management
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    from compinv_core.basics.errors import UserError

    def press_stop(step: int, losses: Any) -> None:
        comfy.model_management.interrupt_current_processing()

    config, path = short_config(steps=3, **OFFICIAL), tmp_path / "state.safetensors"
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(loaded, config, run_dir=tmp_path, on_step=press_stop)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["run"])
    assert header["fingerprint"].pop("what official_2024 repeats")
    save_file(load_file(path), path, {"run": json.dumps(header)})
    with pytest.raises(UserError, match=r"stopped at step 1 of 3 and differs in what official_2024 repeats; "):
        train(loaded, config, run_dir=tmp_path)
