"""The three trainings on SDXL and Stable Diffusion 2: what moves, what stays, stopping and resuming, and the files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from support import host
from support.models.families import FAMILIES, FamilyCase
from support.models.training_case import Loaded, anchored_run, short_config, train
from support.sampling import encode, sample

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = ["textual_inversion", "custom_diffusion", "dreambooth"]


def bits(loaded: Loaded) -> dict[str, str]:
    """Digests of all weights of model and text encoders; memory that the host never writes may hold NaN."""
    import comfy.model_management

    model, clip, _ = loaded
    with torch.inference_mode():
        # Takes patches of another MODEL off the shared network.
        comfy.model_management.load_models_gpu([model, clip.patcher], force_full_load=True)
    weights = {**dict(model.model.named_parameters()), **dict(clip.cond_stage_model.named_parameters())}
    return {
        name: hashlib.sha256(weight.detach().reshape(-1).view(torch.uint8).numpy().data).hexdigest()
        for name, weight in weights.items()
    }


def computed_with(model: Any) -> dict[str, torch.Tensor]:
    """The cross-attention weights that a MODEL computes with, and one other."""
    import comfy.model_management

    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model], force_full_load=True)
        return {
            name: value.detach().clone()
            for name, value in model.model.diffusion_model.named_parameters()
            if ".attn2." in name or name == "out.2.weight"
        }


@pytest.fixture(scope="module", params=METHODS)
def trained(
    request: pytest.FixtureRequest, case: FamilyCase, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Any, Path, bool]:
    """Each method on each family, once: its name, result and folder, and whether the models stayed as they were."""
    folder = tmp_path_factory.mktemp(f"{case.kind}-{request.param}")
    before = bits(case.loaded)
    options = {"lora_path": folder / f"tuned-{case.kind}.safetensors"} if request.param == "custom_diffusion" else {}
    result = anchored_run(case.loaded, request.param, 3, 0, embedding_folder=folder / "embeddings", **options)
    return request.param, result, folder, bits(case.loaded) == before


def test_the_losses_are_finite_and_held_by_anchors(trained: tuple[str, Any, Path, bool]) -> None:
    method, result, *_ = trained
    parts = {"loss", "reconstruction", "anchor"} | ({"prior"} if method != "textual_inversion" else set())
    assert parts <= set(result.history)
    assert all(len(result.history[part]) == 3 for part in parts)
    assert all(torch.tensor(result.history[part]).isfinite().all() for part in parts)
    assert all(value > 0 for value in result.history["anchor"][1:])
    share = float(result.concepts[0].metadata["anchor_weight"])
    total, reconstruction, anchor = (result.history[part][2] for part in ("loss", "reconstruction", "anchor"))
    prior = result.history["prior"][2] if "prior" in parts else 0.0
    assert total == pytest.approx((1 - share) * reconstruction + prior + share * anchor, rel=1e-5)


def test_the_vectors_of_every_encoder_move(case: FamilyCase, trained: tuple[str, Any, Path, bool]) -> None:
    from safetensors.torch import load_file

    from compinv_core.host.learning.concepts import initial_vectors

    _, result, folder, _ = trained
    for concept in result.concepts:
        assert concept.vectors.shape == (1, case.width) and dict(concept.widths) == case.widths
        start = case.parts(initial_vectors(case.loaded[1], concept.superclass, 1))
        parts, file = case.parts(concept.vectors), load_file(folder / "embeddings" / f"{concept.name}.safetensors")
        assert set(file) == set(case.widths)
        for key, part in parts.items():
            assert part.isfinite().all() and (part - start[key]).abs().max() > 1e-4, key
            assert torch.equal(file[key], part)


def test_the_graphs_models_keep_their_bits(trained: tuple[str, Any, Path, bool]) -> None:
    assert trained[3]


def test_the_right_weights_are_trained(case: FamilyCase, trained: tuple[str, Any, Path, bool]) -> None:
    method, result, *_ = trained
    before, after = computed_with(case.loaded[0]), computed_with(result.model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    expected = {
        "textual_inversion": set(),
        "custom_diffusion": {name for name in before if ".attn2.to_k." in name or ".attn2.to_v." in name},
        "dreambooth": set(before),
    }
    assert moved == expected[method]


def test_the_output_model_samples_a_picture_of_its_own(case: FamilyCase, trained: tuple[str, Any, Path, bool]) -> None:
    method, result, *_ = trained
    model, clip, _ = case.loaded
    ours, plain = (sample(each, encode(clip=clip), clip=clip, steps=2, cfg=4.0) for each in (result.model, model))
    assert ours.isfinite().all()
    assert torch.equal(ours, plain) is (method == "textual_inversion")


def test_the_lora_gives_the_output_model_by_the_stock_loader(
    case: FamilyCase, trained: tuple[str, Any, Path, bool]
) -> None:
    import folder_paths

    import nodes

    method, result, folder, _ = trained
    if method != "custom_diffusion":
        # The others write no file of their own accord.
        assert not list(folder.glob("*.safetensors"))
        return
    folder_paths.add_model_folder_path("loras", str(folder))
    model, clip, _ = case.loaded
    with torch.inference_mode():
        reloaded, _ = nodes.LoraLoader().load_lora(model, clip, f"tuned-{case.kind}.safetensors", 1.0, 0.0)
    theirs, ours = computed_with(reloaded), computed_with(result.model)
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    pictures = [sample(each, encode(clip=clip), clip=clip, steps=2) for each in (reloaded, result.model)]
    assert torch.equal(*pictures)


@pytest.mark.parametrize("method", ["textual_inversion", "custom_diffusion"])
def test_resuming_gives_the_same_bits(case: FamilyCase, method: str, tmp_path: Path) -> None:
    import comfy.model_management

    whole = anchored_run(case.loaded, method, 3, 0)

    def press_stop(step: int, losses: Any) -> None:
        if step == 2:
            comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        anchored_run(case.loaded, method, 3, 0, run_dir=tmp_path, on_step=press_stop)
    steps: list[int] = []
    rest = anchored_run(case.loaded, method, 3, 0, run_dir=tmp_path, on_step=lambda step, losses: steps.append(step))
    assert steps == [3] and rest.history == whole.history
    for one, other in zip(rest.concepts, whole.concepts, strict=True):
        assert torch.equal(one.vectors, other.vectors)
    if method == "custom_diffusion":
        assert all(torch.equal(value, whole.lora[name]) for name, value in rest.lora.items())


@pytest.mark.parametrize("kind", ["sdxl_v", "sd2_v"])
def test_a_model_that_predicts_velocity_trains(kind: str) -> None:
    case = FAMILIES[kind.removesuffix("_v")]
    result = train(host.load_anew(kind), short_config(steps=2))
    assert torch.tensor(result.losses).isfinite().all() and result.concepts[0].vectors.shape == (1, case.width)


@pytest.mark.parametrize("hold", ["sphere", "radius"])
def test_a_held_word_is_held_in_every_encoder(case: FamilyCase, hold: str) -> None:
    from compinv_core.host.text.encoder import load_anchors

    _, clip, _ = case.loaded
    anchors = load_anchors(clip, ["dog", "bird"])
    result = train(case.loaded, short_config(steps=2, hold=hold, learning_rate=0.5), anchors=anchors)
    noun = case.parts(load_anchors(clip, ["cat"]).vectors)
    for key, part in case.parts(result.concepts[0].vectors).items():
        # A step of this rate would take a free word far away in each of them.
        assert 0.2 < float(part.norm() / noun[key].norm()) < 5, key


def test_a_preview_is_painted(case: FamilyCase) -> None:
    import comfy.utils

    shown: list[Any] = []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, node_id=None: shown.append(preview))
    try:
        train(case.loaded, short_config(steps=2, preview_every=2))
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    assert len([preview for preview in shown if preview is not None]) == 1


def test_photos_that_are_not_square_train(case: FamilyCase) -> None:
    images = torch.rand(2, 64, 96, 3, generator=torch.Generator().manual_seed(1))
    result = train(case.loaded, short_config(steps=1), images=images)
    assert torch.tensor(result.losses).isfinite().all()
