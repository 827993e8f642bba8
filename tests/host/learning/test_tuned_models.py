"""Trained MODELs, their words and files with everything else: stock LoRA loaders, guidance, recording, layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from support import host, layouts
from support.models.training_case import Loaded, photos, short_config, short_tuning, train, tune
from support.sampling import encode, sample

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = ["custom_diffusion", "dreambooth"]
RANK = 4
WORDS = "embedding:tuned-cat cat"
PROMPT = f"{WORDS} and a ball"
LINEAR, CONVOLUTION = "middle_block.1.transformer_blocks.0.attn2.to_k.weight", "input_blocks.1.0.in_layers.2.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of LoRAs that the host knows."""
    host.start()
    import folder_paths

    made = tmp_path_factory.mktemp("loras")
    folder_paths.add_model_folder_path("loras", str(made))
    return made


def tuned_by(method: str, loaded: Loaded, **options: Any) -> Any:
    """A short training whose word goes to the host's embeddings."""
    settings = {"name": "tuned-cat", "prior_weight": 0.0, **options.pop("settings", {})}
    if method == "dreambooth":
        settings["lora_rank"] = RANK
    return tune(
        loaded, short_tuning(method, **settings), embedding_folder=host.start() / "models" / "embeddings", **options
    )


@pytest.fixture(scope="module", params=METHODS)
def tuned(request: pytest.FixtureRequest, loaded: Loaded) -> Any:
    return tuned_by(request.param, loaded)


def with_loras(model: Any, *names: str) -> Any:
    """The model after one stock Load LoRA for each file."""
    import nodes

    with torch.inference_mode():
        for name in names:
            (model,) = nodes.LoraLoaderModelOnly().load_lora_model_only(model, f"{name}.safetensors", 1.0)
    return model


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    import comfy.model_management

    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model], force_full_load=True)
        return {name: value.detach().clone() for name, value in model.model.diffusion_model.named_parameters()}


def same_weights(model: Any, other: Any) -> bool:
    first, second = weights_of(model), weights_of(other)
    return all(torch.equal(value, second[name]) for name, value in first.items())


def small_lora() -> dict[str, torch.Tensor]:
    """A LoRA of another program."""
    generator, module = torch.Generator().manual_seed(5), f"diffusion_model.{LINEAR.removesuffix('.weight')}"
    return {
        f"{module}.lora_up.weight": 0.1 * torch.randn(320, 2, generator=generator),
        f"{module}.lora_down.weight": 0.1 * torch.randn(2, 768, generator=generator),
        f"{module}.alpha": torch.tensor(2.0),
    }


def test_guidance_lowers_the_loss_of_a_trained_model(loaded: Loaded, tuned: Any) -> None:
    from compinv_core.boxes.layout import Layout
    from compinv_core.host.spatial.guidance import apply_layout_guidance
    from compinv_core.spatial.settings import GuidanceConfig

    layout = Layout((WORDS, "a ball"), ((0, 0, 0.5, 1), (0.5, 0, 1, 1)), 64, 64)
    strong = GuidanceConfig(strength=3000.0, threshold=0.1, max_iterations=2, guided_steps=3)
    records: dict[str, list] = {"watched": [], "guided": []}
    samples = {}
    for name, config in (("watched", GuidanceConfig(threshold=1.0, max_iterations=1)), ("guided", strong)):
        with torch.inference_mode():
            model, positive = apply_layout_guidance(
                tuned.model, loaded[1], PROMPT, layout, config, records[name].append
            )
        samples[name] = sample(model, positive)
    before, after = ([record.losses[0][0] for record in records[name]] for name in ("watched", "guided"))
    assert before[0] == after[0] and all(b - a > 0.02 for b, a in zip(before[1:3], after[1:3], strict=True))
    plain = sample(tuned.model, encode(PROMPT))
    assert torch.equal(samples["watched"], plain) and not torch.equal(samples["guided"], plain)
    assert not torch.equal(plain, sample(loaded[0], encode(PROMPT)))


def test_attention_of_a_trained_model_is_recorded_and_no_bit_changes(loaded: Loaded, tuned: Any) -> None:
    from compinv_core.host.recording.recorder import record_attention

    with torch.inference_mode():
        model, recording = record_attention(tuned.model, loaded[1], PROMPT, (WORDS, "a ball"))
    samples = sample(model, encode(PROMPT), steps=2, cfg=4.0)
    assert torch.equal(samples, sample(tuned.model, encode(PROMPT), steps=2, cfg=4.0))
    maps = recording.record_of(samples).frames[0].maps[0].values
    with torch.inference_mode():
        model, recording = record_attention(loaded[0], loaded[1], PROMPT, (WORDS, "a ball"))
    untrained = recording.record_of(sample(model, encode(PROMPT), steps=2, cfg=4.0)).frames[0].maps[0].values
    assert maps.shape == untrained.shape == (1, 2, 8, 8) and not torch.equal(maps, untrained)


def test_layouts_are_collected_with_a_trained_model_and_predicted_for_its_word(
    loaded: Loaded, tuned: Any, tmp_path: Path
) -> None:
    from compinv_core.host.layouts.collection import CollectionConfig, collect_layouts
    from compinv_core.host.layouts.prediction import predict_layout
    from compinv_core.host.text.encoder import load_anchors
    from compinv_core.layouts.predictor import SideBySide

    _, clip, vae = loaded
    config = CollectionConfig(**layouts.collection(pairs=1, images_per_pair=2))
    pictures = []
    for name, model in (("trained", tuned.model), ("untrained", loaded[0])):
        with torch.inference_mode():
            collect_layouts(
                model, clip, vae, layouts.PixelDetector(), load_anchors(clip, layouts.NOUNS), config, tmp_path / name
            )
        pictures.append([path.read_bytes() for path in sorted((tmp_path / name / "images").iterdir())])
    assert len(pictures[0]) == 2 and all(a != b for a, b in zip(*pictures, strict=True))
    with torch.inference_mode():
        predicted, _ = predict_layout(SideBySide(), clip, (WORDS, "a dog"), 64, 64)
    assert predicted.phrases == (WORDS, "a dog") and len(predicted.boxes) == 2


def test_a_limited_rank_is_the_best_approximation_also_by_the_stock_loader(loaded: Loaded, folder: Path) -> None:
    result = tuned_by("dreambooth", loaded)
    save_file(result.lora, folder / "limited.safetensors")
    base = {name: value.float() for name, value in weights_of(loaded[0]).items()}
    wanted = {name: value.float() - base[name] for name, value in weights_of(result.model).items()}
    reloaded = with_loras(loaded[0], "limited")
    found = {name: value.float() - base[name] for name, value in weights_of(reloaded).items()}
    for name in (LINEAR, CONVOLUTION):
        values = torch.linalg.svdvals(wanted[name].flatten(1))
        left_out = float(values[RANK:].norm())
        # The smallest error of any matrix of this rank (Eckart and Young), and by far not the whole difference.
        error = float((wanted[name] - found[name]).norm())
        assert error == pytest.approx(left_out, rel=0.01) and error < 0.99 * float(values.norm()), name
        kept = torch.linalg.svdvals(found[name].flatten(1))
        assert kept[RANK] < 0.1 * kept[RANK - 1], name
    assert not torch.equal(sample(reloaded, encode(PROMPT)), sample(loaded[0], encode(PROMPT)))


def test_separately_trained_concepts_compose(loaded: Loaded, folder: Path) -> None:
    single = {}
    for name, superclass, images in (("a-cat", "cat", photos()), ("a-dog", "dog", photos().flip(2))):
        settings = {"name": name, "superclass": superclass}
        single[name] = tuned_by(
            "custom_diffusion", loaded, settings=settings, images=images, lora_path=folder / f"{name}.safetensors"
        )
    together = single["a-cat"].model.clone()
    together.add_patches({key: patch for key, [(_, patch, *_)] in single["a-dog"].model.patches.items()})
    by_files = with_loras(loaded[0], "a-cat", "a-dog")
    prompt = encode("embedding:a-cat cat and embedding:a-dog dog")
    picture = sample(by_files, prompt)
    assert same_weights(by_files, together) and torch.equal(picture, sample(together, prompt))
    for name in single:
        alone = with_loras(loaded[0], name)
        assert same_weights(alone, single[name].model) and not torch.equal(picture, sample(alone, prompt))
    assert not torch.equal(picture, sample(by_files, encode("embedding:a-cat cat and dog")))


@pytest.mark.parametrize("method", METHODS)
def test_a_model_with_a_lora_is_trained_with_it(
    loaded: Loaded, folder: Path, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    caplog.set_level("INFO", logger="compinv")
    save_file(small_lora(), folder / "small.safetensors")
    patched = with_loras(loaded[0], "small")
    before, picture = weights_of(patched), sample(patched, encode())
    options = {"lora_path": folder / "on-top.safetensors"} if method == "custom_diffusion" else {}
    result = tuned_by(method, (patched, *loaded[1:]), **options)
    assert "the patched model is trained, and the result belongs on top of the same patches" in caplog.text
    assert result.concepts[0].metadata["model_patched"] == "True"
    after = weights_of(result.model)
    step = (after[LINEAR].float() - before[LINEAR].float()).abs().max()
    lora = (before[LINEAR].float() - weights_of(loaded[0])[LINEAR].float()).abs().max()
    assert 0 < step < 0.2 * lora
    assert torch.equal(sample(patched, encode()), picture)
    if method == "custom_diffusion":
        reloaded = with_loras(loaded[0], "small", "on-top")
        assert same_weights(reloaded, result.model)
        assert torch.equal(sample(reloaded, encode(PROMPT)), sample(result.model, encode(PROMPT)))


def test_a_word_is_learned_for_a_model_with_a_lora(
    loaded: Loaded, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="compinv")
    save_file(small_lora(), folder / "small.safetensors")
    plain = train(loaded, short_config(steps=1))
    assert "the model is patched" not in caplog.text and plain.concepts[0].metadata["model_patched"] == "False"
    result = train((with_loras(loaded[0], "small"), *loaded[1:]), short_config(steps=1))
    assert "the word is learned for the patched model, which is not changed" in caplog.text
    assert result.losses != plain.losses and result.concepts[0].metadata["model_patched"] == "True"


def test_a_lora_beside_the_weights_is_refused(loaded: Loaded) -> None:
    import comfy.sd

    from compinv_core.basics.errors import UserError

    with torch.inference_mode():
        bypassed, _ = comfy.sd.load_bypass_lora_for_models(loaded[0], None, small_lora(), 1.0, 1.0)
    with pytest.raises(UserError, match=r"LoRA from Load LoRA \(Bypass\).*use Load LoRA"):
        train((bypassed, *loaded[1:]), short_config(steps=1))
