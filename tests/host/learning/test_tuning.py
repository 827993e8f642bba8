"""Custom Diffusion and DreamBooth in the real host, in process: what is trained, what comes out, what is left alone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from compinv_core.training.watch import SCORE, STEADY
from support.models.training_case import (
    SIZE,
    Loaded,
    class_pictures,
    default_tuning,
    photos,
    sample,
    short_tuning,
    tune,
)

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = ["custom_diffusion", "dreambooth"]


@pytest.fixture(scope="module")
def plain_picture(loaded: Loaded) -> torch.Tensor:
    return sample(loaded[0], loaded[1])


@pytest.fixture(scope="module")
def anchors(loaded: Loaded) -> Any:
    from compinv_core.host.text.encoder import load_anchors

    return load_anchors(loaded[1], ["dog", "bird"])


@pytest.fixture(scope="module", params=METHODS)
def tuned(
    request: pytest.FixtureRequest, loaded: Loaded, plain_picture: torch.Tensor, anchors: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Any, Path]:  # fmt: skip
    """Each method, once: its name, its result and the folder that it wrote to."""
    folder = tmp_path_factory.mktemp(request.param)
    options = {"lora_path": folder / f"{request.param}.safetensors"} if request.param == "custom_diffusion" else {}
    result = tune(
        loaded, short_tuning(request.param, lora_rank=1280) if not options else short_tuning(request.param),
        anchors=anchors, embedding_folder=folder / "embeddings", run_dir=folder / "run", **options,
    )  # fmt: skip
    return request.param, result, folder


def weights_of(model: Any, inputs: Loaded) -> dict[str, torch.Tensor]:
    """The weights that a MODEL computes with."""
    import comfy.model_management

    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model], force_full_load=True)
        return {name: value.detach().clone() for name, value in model.model.diffusion_model.named_parameters()}


def test_the_right_weights_are_trained(loaded: Loaded, tuned: tuple[str, Any, Path]) -> None:
    method, result, _ = tuned
    before, after = weights_of(loaded[0], loaded), weights_of(result.model, loaded)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    expected = set(before)
    if method == "custom_diffusion":
        expected = {name for name in before if ".attn2.to_k." in name or ".attn2.to_v." in name}
        assert len(expected) == 6
    assert moved == expected


def test_the_word_is_trained_and_held_by_its_anchors(loaded: Loaded, tuned: tuple[str, Any, Path]) -> None:
    from compinv_core.host.learning.concepts import initial_vectors
    from compinv_core.learning.embedding_file import read_concept

    _, result, folder = tuned
    (concept,) = result.concepts
    assert (concept.vectors - initial_vectors(loaded[1], "cat", 1)).abs().max() > 1e-4
    parts = ("loss", "reconstruction", "prior", "anchor")
    assert set(result.history) == {*parts, SCORE, STEADY}
    share = float(concept.metadata["anchor_weight"])
    total, reconstruction, prior, anchor = (result.history[key][1] for key in parts)
    assert total == pytest.approx((1 - share) * reconstruction + prior + share * anchor, rel=1e-5) and anchor > 0
    assert "with semantic inversion" in concept.metadata["method"] and '"cat"' in concept.metadata["anchors"]
    assert torch.equal(read_concept(folder / "embeddings" / "my-cat.safetensors").vectors, concept.vectors)
    assert result.prompt_words == "embedding:my-cat cat"


def test_the_graphs_model_gives_the_same_picture_and_the_clone_another(
    loaded: Loaded, plain_picture: torch.Tensor, tuned: tuple[str, Any, Path]
) -> None:
    model, clip, _ = loaded
    _, result, _ = tuned
    assert not torch.equal(sample(result.model, clip), plain_picture)
    assert torch.equal(sample(model, clip), plain_picture)


def test_the_lora_gives_the_trained_model_by_the_stock_loader(loaded: Loaded, tuned: tuple[str, Any, Path]) -> None:
    import folder_paths
    from safetensors.torch import save_file

    import nodes

    method, result, folder = tuned
    path = folder / f"{method}.safetensors"
    if method == "dreambooth":
        save_file(result.lora, path)
    folder_paths.add_model_folder_path("loras", str(folder))
    with torch.inference_mode():
        (reloaded,) = nodes.LoraLoaderModelOnly().load_lora_model_only(loaded[0], path.name, 1.0)
    theirs, ours = weights_of(reloaded, loaded), weights_of(result.model, loaded)
    if method == "custom_diffusion":
        assert all(torch.equal(theirs[name], ours[name]) for name in ours)
        assert torch.equal(sample(reloaded, loaded[1]), sample(result.model, loaded[1]))
    else:
        # At full rank the factors give the difference again, up to their rounding.
        before = weights_of(loaded[0], loaded)
        for name in ours:
            change = (ours[name].float() - before[name].float()).abs().max()
            assert (theirs[name].float() - ours[name].float()).abs().max() < max(0.02 * float(change), 1e-3), name


def test_a_finished_training_is_read_back_without_a_step(
    loaded: Loaded, anchors: Any, tuned: tuple[str, Any, Path], caplog: pytest.LogCaptureFixture
) -> None:
    method, result, folder = tuned
    steps: list[int] = []
    # A preview prompt without {} is not read, since there are no previews.
    config = short_tuning(method, preview_prompt="a photo")
    with caplog.at_level(logging.INFO, "compinv"):
        again = tune(
            loaded, config, anchors=anchors, run_dir=folder / "run", on_step=lambda step, losses: steps.append(step)
        )
    assert not steps and "needs about" not in caplog.text
    assert torch.equal(again.concepts[0].vectors, result.concepts[0].vectors)
    theirs, ours = weights_of(again.model, loaded), weights_of(result.model, loaded)
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


@pytest.mark.parametrize("method", METHODS)
def test_concepts_learned_together_all_train(loaded: Loaded, anchors: Any, method: str) -> None:
    from compinv_core.host.learning.concepts import initial_vectors
    from compinv_core.learning.concept import Concept

    dog = Concept("my-dog", "dog", photos=(photos().flip(1),), num_vectors=2)
    bird = Concept("my-bird", "bird", photos=(photos().flip(2),), masks=(torch.ones(2, SIZE, SIZE),))
    config = short_tuning(method, steps=3, batch_size=2, prior_weight=0.0)
    result = tune(loaded, config, anchors=anchors, more_concepts=(dog, bird))
    assert [concept.name for concept in result.concepts] == ["my-cat", "my-dog", "my-bird"]
    for concept in result.concepts:
        start = initial_vectors(loaded[1], concept.superclass, len(concept.vectors))
        assert ((concept.vectors - start).abs().amax(1) > 1e-4).all(), concept.name
    assert result.prompt_words == "embedding:my-cat cat and embedding:my-dog dog and embedding:my-bird bird"


@pytest.mark.parametrize("method", METHODS)
def test_checkpointing_saves_memory_and_changes_nothing(loaded: Loaded, method: str) -> None:
    plain = tune(loaded, short_tuning(method, prior_weight=0.0))
    twice = tune(loaded, short_tuning(method, prior_weight=0.0, gradient_checkpointing=True))
    assert plain.losses == twice.losses and torch.equal(plain.concepts[0].vectors, twice.concepts[0].vectors)
    assert not any("forward" in vars(module) for module in loaded[0].model.modules())


def test_adafactor_trains_and_resumes(loaded: Loaded, tmp_path: Path) -> None:
    import comfy.model_management

    config = short_tuning("dreambooth", steps=3, optimizer="adafactor", prior_weight=0.0)
    straight = tune(loaded, config)

    def press_stop(step: int, losses: Any) -> None:
        if step == 2:
            comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        tune(loaded, config, run_dir=tmp_path, on_step=press_stop)
    resumed = tune(loaded, config, run_dir=tmp_path)
    assert resumed.history == straight.history
    assert torch.equal(resumed.concepts[0].vectors, straight.concepts[0].vectors)


def test_previews_show_the_trained_model(loaded: Loaded) -> None:
    import comfy.utils

    shown: list[Any] = []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, node_id=None: shown.append(preview))
    try:
        tune(loaded, short_tuning("custom_diffusion", prior_weight=0.0, preview_every=1, preview_prompt="{}"))
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    pictures = [preview[1] for preview in shown if preview is not None]
    assert [picture.size for picture in pictures] == [(SIZE, SIZE)] * 2
    assert pictures[0].tobytes() != pictures[1].tobytes()


def test_class_pictures_are_made_once_and_kept(loaded: Loaded, tmp_path: Path) -> None:
    config = short_tuning("custom_diffusion", steps=1, class_prompt="a photo of a cat")
    first = tune(loaded, config, class_images=None, run_dir=tmp_path)
    files = sorted(tmp_path.glob("class_images/*/*.png"))
    assert [file.name for file in files] == ["0000.png", "0001.png"]
    times = [file.stat().st_mtime_ns for file in files]
    files[1].unlink()
    second = tune(loaded, short_tuning("custom_diffusion", steps=1, class_prompt="a photo of a cat", resume=False),
                  class_images=None, run_dir=tmp_path)  # fmt: skip
    assert files[0].stat().st_mtime_ns == times[0] and files[1].is_file()
    assert first.losses == second.losses
    assert torch.equal(first.concepts[0].vectors, second.concepts[0].vectors)


def test_pictures_of_the_class_change_what_is_learned(loaded: Loaded) -> None:
    config = short_tuning("custom_diffusion")
    one, other = (tune(loaded, config, class_images=images) for images in (class_pictures(), 1 - class_pictures()))
    assert one.history["prior"] != other.history["prior"]
    assert not torch.equal(next(iter(one.lora.values())), next(iter(other.lora.values())))


@pytest.mark.parametrize("new", [False, True], ids=["older graph", "new node"])
@pytest.mark.parametrize("method", METHODS)
def test_anchors_change_the_trained_weights_at_the_nodes_defaults(
    loaded: Loaded, anchors: Any, method: str, new: bool
) -> None:
    before = weights_of(loaded[0], loaded)
    moved: dict[bool, torch.Tensor] = {}
    words: dict[bool, torch.Tensor] = {}
    for held in (False, True):
        case = default_tuning(method, new, steps=8)
        result = tune(loaded, case, anchors=anchors if held else None)
        after = weights_of(result.model, loaded)
        moved[held] = torch.cat([(after[name] - before[name]).flatten() for name in before])
        words[held] = result.concepts[0].vectors
    difference = float((moved[True] - moved[False]).norm() / moved[False].norm())
    # With the prior scaled as the rest, Adam would cancel the factor, and it was 0.02.
    assert difference > 0.2, difference
    assert not torch.equal(words[True], words[False])
