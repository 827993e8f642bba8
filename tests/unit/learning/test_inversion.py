"""The task of textual inversion on a linear stand-in for the diffusion model."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from compinv_core.basics.errors import UserError
from compinv_core.basics.settings import fingerprint
from compinv_core.learning.concept import Concept
from compinv_core.learning.condition import Condition
from compinv_core.learning.inversion import Inversion, Subject, reconstruction_loss
from compinv_core.learning.pictures.encoded import InversionData
from compinv_core.learning.settings import InversionConfig
from compinv_core.semantic.anchors import Anchors, anchor_mean
from compinv_core.semantic.context import Surroundings
from compinv_core.semantic.hold import Hold
from compinv_core.semantic.learned_token import LearnedToken
from compinv_core.semantic.recoding import AnchorRecoder
from compinv_core.training.loop import LoopSettings, train
from compinv_core.words.sentences import TEMPLATES, split_template, with_class

WIDTH = 6
ANCHORS = Anchors(
    ("cat", "dog", "bird"), torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(9)), ((1,), (2,), (3,))
)


def a_task(with_anchors: bool = True, mask: bool = False, num_vectors: int = 1, **settings: Any) -> Inversion:
    config = InversionConfig(**{"batch_size": 2, "learning_rate": 0.05, "recode_every": 0, **settings})
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(3, 4, 2, 2, generator=generator)
    weights = torch.tensor([1.0, 0.5, 0.0, 0.0]).reshape(1, 1, 2, 2).repeat(3, 1, 1, 1) if mask else None
    initial = torch.randn(num_vectors, WIDTH, generator=generator)

    def denoise(x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, condition: Condition) -> tuple:
        return x + condition.tokens[:, 0, :4].reshape(-1, 4, 1, 1) * (1 + t.view(-1, 1, 1, 1) / 10), noise

    def encode(index: int, vectors: torch.Tensor) -> Condition:
        return Condition(vectors.sum(0).reshape(1, 1, WIDTH).expand(1, 77, WIDTH) * (1 + index / 10))

    recoder = AnchorRecoder(ANCHORS, 0, num_vectors, config.recoder_settings()) if with_anchors else None
    token = LearnedToken(initial, recoder, config.reduction)
    return Inversion(config, [Subject(token, InversionData(latents, weights), encode)], 10, denoise)


def test_reconstruction_is_the_mean_squared_error() -> None:
    prediction, target = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    assert float(reconstruction_loss(prediction, target)) == pytest.approx(
        float(torch.nn.functional.mse_loss(prediction, target))
    )
    even = reconstruction_loss(prediction, target, torch.full((2, 1, 3, 3), 0.3))
    assert float(even) == pytest.approx(float(torch.nn.functional.mse_loss(prediction, target)))


def test_masked_reconstruction_by_hand() -> None:
    # Image 1: errors 1 and 4 under weights 1 and 0; image 2: errors 9 and 1 under weights .5 and .25.
    prediction = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 1.0]]]])
    weights = torch.tensor([[[[1.0, 0.0]]], [[[0.5, 0.25]]]])
    expected = (1.0 + (4.5 + 0.25) / 0.75) / 2
    assert float(reconstruction_loss(prediction, torch.zeros_like(prediction), weights)) == pytest.approx(expected)


def test_masked_reconstruction_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randn(2, 2, 2, 3, generator=generator).requires_grad_(True)
    target, weights = torch.randn(2, 2, 2, 3, generator=generator), torch.rand(2, 1, 2, 3, generator=generator)
    loss = reconstruction_loss(prediction, target, weights)
    loss.backward()
    expected = (prediction - target) * weights / weights.sum((1, 2, 3), keepdim=True) / 2  # 2 / (2 channels * 2 images)
    assert prediction.grad is not None and torch.allclose(prediction.grad, expected.detach(), atol=1e-6)


def test_total_loss_is_the_weighted_sum() -> None:
    task = a_task(anchor_weight=0.3)
    loss = task.loss(0, torch.Generator().manual_seed(0))
    expected = 0.7 * loss.parts["reconstruction"] + 0.3 * loss.parts["anchor"]
    assert float(loss.total.detach()) == pytest.approx(float(expected.detach()))


def test_without_anchors_the_loss_is_the_reconstruction() -> None:
    loss = a_task(with_anchors=False).loss(0, torch.Generator().manual_seed(0))
    assert loss.total is loss.parts["reconstruction"] and set(loss.parts) == {"reconstruction"}


def test_at_full_weight_training_ends_at_the_anchors() -> None:
    task = a_task(anchor_weight=1.0, num_vectors=2)
    train(task, LoopSettings(steps=500))
    assert task.subjects[0].token.recoder is not None
    assert torch.allclose(
        task.subjects[0].token.vectors, anchor_mean(ANCHORS.vectors, task.subjects[0].token.recoder.codes), atol=1e-2
    )


def test_every_vector_is_trained() -> None:
    task = a_task(num_vectors=3)
    before = task.subjects[0].token.vectors.detach().clone()
    train(task, LoopSettings(steps=3))
    assert ((task.subjects[0].token.vectors - before).abs().amax(1) > 0.01).all()


def test_the_official_preset_never_recodes_and_has_its_own_reduction_and_decay() -> None:
    task = a_task(preset="official_2024", recode_every=1, anchor_reduction="sum")
    settings = task.config.loop_settings(False)
    assert settings.weight_decay == 0.01 and InversionConfig().loop_settings(False).weight_decay == 0.0
    train(task, LoopSettings(steps=3, weight_decay=settings.weight_decay))
    assert task.subjects[0].token.recoder is not None and task.subjects[0].token.recoder.active() == {"cat": 1.0}
    assert task.config.reduction == "seq_mean"


def test_mask_changes_what_is_learned() -> None:
    plain, masked = a_task(False), a_task(False, mask=True)
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    losses = [float(task.loss(0, g).total.detach()) for task, g in zip((plain, masked), generators, strict=True)]
    assert losses[0] != pytest.approx(losses[1])


def test_the_context_loss_joins_the_others_without_another_draw_of_theirs() -> None:
    plain, kept = a_task(context_weight=0.25), a_task(context_weight=0.25)
    (subject,) = kept.subjects
    words = Surroundings(
        lambda index, vectors: subject.encode(index, vectors).tokens,
        lambda index: torch.ones(1, 77, WIDTH),
        [([0, 5], [0, 5])],
    )
    kept.subjects = (dataclasses.replace(subject, surroundings=words),)
    before, after = (task.loss(0, torch.Generator().manual_seed(5)) for task in (plain, kept))
    assert set(after.parts) - set(before.parts) == {"context"} and "context" not in before.parts
    context = 1 - torch.cosine_similarity(subject.token.vectors.sum(0), torch.ones(WIDTH), dim=0)
    assert float(after.parts["context"].detach()) == pytest.approx(float(context.detach()), rel=1e-5)
    assert float((after.total - before.total).detach()) == pytest.approx(0.25 * float(context.detach()), rel=1e-4)


def test_on_the_sphere_the_optimiser_leaves_the_word_alone() -> None:
    task = a_task()
    token = LearnedToken(
        task.subjects[0].token.vectors.detach(), task.subjects[0].token.recoder, hold=Hold("sphere", rate=0.1), norm=2.0
    )
    task.subjects = (dataclasses.replace(task.subjects[0], token=token),)
    assert task.parameter_groups()[0]["lr"] == 0.0
    before = token.vectors.detach().clone()
    train(task, LoopSettings(steps=1))
    after = token.vectors.detach()
    # One step of tangent 0.1, and the norm as it was.
    assert after.norm() == pytest.approx(2.0) and before.norm() == pytest.approx(2.0)
    assert float(torch.cosine_similarity(before, after)) == pytest.approx(1 / (1 + 0.1**2) ** 0.5)


def test_codes_travel_with_the_state() -> None:
    task, other = a_task(recode_every=1), a_task(recode_every=1)
    train(task, LoopSettings(steps=3))
    other.load_state_tensors({name: tensor.clone() for name, tensor in task.state_tensors().items()})
    losses = [float(t.loss(0, torch.Generator().manual_seed(7)).total.detach()) for t in (task, other)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": 0}, "steps"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"anchor_weight": 1.5}, "anchor_weight"),
        ({"sparse_coder": "omp"}, "sparse_coder"),
        ({"template": "photo"}, "template"),
        ({"preset": "official"}, "preset"),
        ({"templates": ("no place",)}, "exactly once"),
        ({"preview_every": 5, "preview_prompt": "a cat"}, "exactly once"),
    ],
)
def test_bad_settings_get_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        InversionConfig(**settings)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"name": ""}, "name is empty"),
        ({"name": "../evil"}, 'name is "../evil"'),
        ({"name": "CON"}, "Windows keeps for a device"),
        ({"name": "my\ncat"}, r'name is "my\\ncat"'),
        ({"name": 5}, "name is 5; give a text"),
        ({"superclass": "  "}, "superclass is empty"),
        ({"superclass": None}, "superclass is None; give a text"),
        ({"num_vectors": 0}, "num_vectors"),
        ({"num_vectors": 76}, "num_vectors is 76"),
    ],
)
def test_bad_words_get_a_sentence(words: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Concept.to_learn({"name": "x", "superclass": "cat", **words}, torch.zeros(1, 64, 64, 3))


def test_fingerprint_ignores_what_does_not_change_the_bits() -> None:
    config = InversionConfig(seed=0, save_every=10)
    same = InversionConfig(save_every=3, preview_every=2, resume=False)
    assert fingerprint(config) == fingerprint(same)
    assert fingerprint(config) != fingerprint(InversionConfig(seed=1))
    # Runs from before there were these go on.
    assert not {"hold", "concentration", "context_weight"} & set(fingerprint(config))
    assert fingerprint(config) != fingerprint(InversionConfig(context_weight=0.1))


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_are_distinct_and_hold_one_place(name: str) -> None:
    assert len(set(TEMPLATES[name])) == len(TEMPLATES[name]) >= 12
    for template in TEMPLATES[name]:
        before, after = split_template(template)
        assert f"{before} {{}} {after}".split() == template.split()


def test_class_noun_takes_its_place_behind_the_word() -> None:
    assert with_class("a photo of {} {class}", "red panda") == "a photo of {} red panda"
    assert with_class("a photo of {}", "cat") == "a photo of {}"
    assert {with_class(template, "cat") for template in TEMPLATES["object with class"]} == {
        template.replace("{}", "{} cat") for template in TEMPLATES["object"]
    }
