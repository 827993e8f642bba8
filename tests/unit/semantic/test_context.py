"""The context loss: by hand, its gradient, and which sentence it is drawn from."""

from __future__ import annotations

import pytest
import torch

from compinv_core.semantic.context import Surroundings, context_loss
from compinv_core.words.sentences import OBJECT_TEMPLATES, TEMPLATES, beside_nouns


def test_context_loss_by_hand() -> None:
    # Cosines 1, 0 and -1; lengths do not count.
    outputs = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    reference = torch.tensor([[1.0, 0.0], [5.0, 0.0], [-2.0, -2.0]])
    assert float(context_loss(outputs, reference)) == pytest.approx(1.0)
    assert float(context_loss(outputs, 7 * outputs)) == pytest.approx(0.0, abs=1e-6)


def test_gradient_of_the_context_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, reference = (torch.randn(4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x: context_loss(x, reference), outputs.requires_grad_(True))


def test_only_the_neighbours_count_and_the_reference_is_fixed() -> None:
    scale = torch.nn.Parameter(torch.ones(()))

    def encode(index: int, vectors: torch.Tensor) -> torch.Tensor:
        # Every token behind the word has the word's mean mixed in.
        plain = torch.eye(6)[None] * (index + 1)
        mixed = torch.tensor([0.0, 0.0, 9.0, 9.0, 1.0, 1.0])[:, None] * vectors.mean(0)
        return plain + mixed

    def reference(index: int) -> torch.Tensor:
        return scale * torch.eye(6)[None, [0, 1, 2, 4, 5, 3]]

    words = Surroundings(encode, reference, [([1, 4, 5], [1, 3, 4]), ([1], [1])])
    vectors = torch.zeros(2, 6, requires_grad=True)
    assert [float(words.loss(index, vectors).detach()) for index in (0, 1)] == pytest.approx([0.0, 0.0], abs=1e-6)
    moved = torch.zeros(2, 6)
    moved[:, 0] = 1.0
    moved.requires_grad_(True)
    losses = [words.loss(index, moved) for index in (0, 1)]
    # (1 - 1/sqrt 2) at two of three places of the first sentence; none in the second, before the word.
    assert [float(loss.detach()) for loss in losses] == pytest.approx([2 / 3 * (1 - 0.5**0.5), 0.0], abs=1e-6)
    losses[0].backward()
    assert moved.grad is not None and moved.grad.abs().sum() > 0 and scale.grad is None
    assert {words.draw(torch.Generator().manual_seed(seed)) for seed in range(8)} == {0, 1}


def test_sentences_beside_nouns_follow_the_templates() -> None:
    assert beside_nouns(OBJECT_TEMPLATES, ["dog"]) == (("a {} and a dog", "a {class} and a dog"),)
    assert beside_nouns(TEMPLATES["object with class"], ["dog", "boat"]) == (
        ("a {} {class} and a dog", "a {class} and a dog"),
        ("a {} {class} and a boat", "a {class} and a boat"),
    )
