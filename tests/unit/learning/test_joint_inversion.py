"""Several concepts, trained weights and the prior loss, on a linear stand-in for the diffusion model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compinv_core.learning.condition import Condition
from compinv_core.learning.inversion import Inversion, Subject
from compinv_core.learning.pictures.encoded import ClassData, InversionData
from compinv_core.learning.tuning_settings import CustomDiffusionConfig
from compinv_core.semantic.anchors import Anchors
from compinv_core.semantic.learned_token import LearnedToken
from compinv_core.semantic.recoding import AnchorRecoder
from compinv_core.training.loop import LoopSettings, train

WIDTH = 6
WORDS = ("cat", "dog", "bird")
ANCHORS = Anchors(WORDS, torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(9)), ((1,), (2,), (3,)))


def a_task(
    number: int = 2, batch_size: int = 2, prior: bool = False, anchors: bool = True, **settings: Any
) -> tuple[Inversion, list[torch.Tensor]]:
    """A task of `number` concepts, and the list that collects the latents of every batch."""
    config = CustomDiffusionConfig(**{"batch_size": batch_size, "learning_rate": 0.05, "recode_every": 0, **settings})
    scale = torch.nn.Parameter(torch.ones(1))
    seen: list[torch.Tensor] = []

    def denoise(x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, condition: Condition) -> tuple:
        seen.append(x)
        return scale * (x + condition.tokens[:, 0, :4].reshape(-1, 4, 1, 1)), noise

    def encode(index: int, vectors: torch.Tensor) -> Condition:
        return Condition(vectors.sum(0).reshape(1, 1, WIDTH).expand(1, 77, WIDTH))

    subjects = []
    for index in range(number):
        recoder = AnchorRecoder(ANCHORS, index, 1, config.recoder_settings()) if anchors else None
        token = LearnedToken(torch.full((1, WIDTH), float(index)), recoder, config.reduction)
        # The latents of concept i hold i, those of its class -i - 1.
        data = InversionData(torch.full((3, 4, 2, 2), float(index)))
        pictures = (
            ClassData(torch.full((5, 4, 2, 2), -1.0 - index), Condition(torch.zeros(1, 77, WIDTH))) if prior else None
        )
        subjects.append(Subject(token, data, encode, pictures))
    return Inversion(config, subjects, 10, denoise, {"scale": scale}), seen


def mixture(latents: torch.Tensor) -> list[int]:
    return [int(value) for value in latents[:, 0, 0, 0]]


@pytest.mark.parametrize(
    ("number", "batch_size", "expected"),
    [
        (2, 2, [[0, 1], [0, 1], [0, 1], [0, 1]]),
        (2, 1, [[0], [1], [0], [1]]),
        (2, 3, [[0, 0, 1], [0, 1, 1], [0, 0, 1], [0, 1, 1]]),
        (3, 2, [[0, 1], [0, 2], [1, 2], [0, 1]]),
    ],
)
def test_batches_hold_the_concepts_evenly(number: int, batch_size: int, expected: list[list[int]]) -> None:
    task, seen = a_task(number, batch_size)
    train(task, LoopSettings(steps=4))
    assert [mixture(latents) for latents in seen] == expected


def test_every_concept_and_every_weight_trains() -> None:
    task, _ = a_task(3, 2)
    before = [subject.token.vectors.detach().clone() for subject in task.subjects]
    train(task, LoopSettings(steps=6))
    for subject, start in zip(task.subjects, before, strict=True):
        assert (subject.token.vectors - start).abs().max() > 0.05
    assert task.weights["scale"] != 1.0


def test_the_prior_loss_by_hand() -> None:
    task, seen = a_task(2, 2, prior=True, prior_weight=0.3)
    loss = task.loss(0, torch.Generator().manual_seed(0))
    assert mixture(seen[0]) == [0, 1, -1, -2]
    parts = {name: float(part.detach()) for name, part in loss.parts.items()}
    # The prior is not scaled by 1 - lambda.
    expected = 0.05 * parts["reconstruction"] + 0.3 * parts["prior"] + 0.95 * parts["anchor"]
    assert float(loss.total.detach()) == pytest.approx(expected)
    # The class context is zero and the scale one, so the prediction of class pictures is the latents themselves.
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        torch.randint(1, (1,), generator=generator), torch.randint(3, (1,), generator=generator)
    torch.randint(5, (1,), generator=generator), torch.randint(5, (1,), generator=generator)
    torch.randint(10, (4,), generator=generator)
    noise = torch.randn((4, 4, 2, 2), generator=generator)[2:]
    by_hand = (torch.tensor([-1.0, -2.0]).reshape(2, 1, 1, 1) - noise).square().mean()
    assert parts["prior"] == pytest.approx(float(by_hand))


def test_a_concept_is_pulled_to_its_anchors_as_it_would_be_alone() -> None:
    def gradients(number: int) -> list[torch.Tensor]:
        task, _ = a_task(number, 2 * number, anchor_weight=1.0)
        task.loss(0, torch.Generator().manual_seed(0)).total.backward()
        return [subject.token.parameter.grad * number for subject in task.subjects]  # type: ignore[operator]

    alone, together = gradients(1)[0], gradients(2)[0]
    assert torch.allclose(alone, together) and alone.abs().max() > 0


def test_concepts_with_and_without_masks_share_a_batch() -> None:
    task, _ = a_task(2, 2, anchors=False)
    first = task.subjects[0]
    half = torch.tensor([1.0, 0.0]).reshape(1, 1, 2, 1).expand(3, 1, 2, 2)
    masked = Subject(first.token, InversionData(first.data.latents, half), first.encode)
    with_mask = Inversion(task.config, [masked, task.subjects[1]], 10, task._denoise, task.weights)
    losses = [float(t.loss(0, torch.Generator().manual_seed(3)).total.detach()) for t in (task, with_mask)]
    assert losses[0] != pytest.approx(losses[1])


def test_everything_that_changes_travels_with_the_state() -> None:
    (task, _), (other, _) = a_task(3, 2, recode_every=1), a_task(3, 2, recode_every=1)
    train(task, LoopSettings(steps=4))
    other.load_state_tensors({name: tensor.clone() for name, tensor in task.state_tensors().items()})
    losses = [float(t.loss(5, torch.Generator().manual_seed(7)).total.detach()) for t in (task, other)]
    assert losses[0] == losses[1]
    assert set(task.state_tensors()) == {
        "weights.scale", "vectors", "codes", "vectors.1", "codes.1", "vectors.2", "codes.2",
    }  # fmt: skip


def test_rates_of_words_and_weights() -> None:
    same, _ = a_task(learning_rate=0.01)
    assert [group["lr"] for group in same.parameter_groups()] == [0.01, 0.01]
    own, _ = a_task(learning_rate=0.01, token_learning_rate=0.5)
    assert [group["lr"] for group in own.parameter_groups()] == [0.5, 0.01]
