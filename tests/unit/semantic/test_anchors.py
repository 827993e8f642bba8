"""The anchor loss, its reductions, and the identities stated in the method."""

from __future__ import annotations

import pytest
import torch

from compinv_core.basics.errors import UserError
from compinv_core.semantic.anchors import Anchors, anchor_loss, anchor_mean, equivalent_anchor_weight, sparse_code


def some_anchors(*words: str, width: int = 4) -> Anchors:
    vectors = torch.arange(float(len(words) * width)).reshape(len(words), width)
    return Anchors(words, vectors, tuple((sum(map(ord, word)),) for word in words))


def test_hand_computed_value() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    dictionary = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    codes = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    # v = 1: .25 * 1 + .75 * 4 = 3.25; v = 2: 1 * 4 = 4.
    assert float(anchor_loss(vectors, dictionary, codes, "sum")) == pytest.approx(7.25)
    assert float(anchor_loss(vectors, dictionary, codes, "dim_mean")) == pytest.approx(7.25 / 2)
    assert float(anchor_loss(vectors, dictionary, codes, "seq_mean")) == pytest.approx(7.25 / (77 * 2))
    # Of the three anchors one has no weight, and counts.
    three, unused = torch.cat([dictionary, torch.full((1, 2), 9.0)]), torch.zeros(2, 1)
    assert float(anchor_loss(vectors, three, torch.cat([codes, unused], 1), "per_anchor")) == pytest.approx(7.25 / 3)


def test_seq_mean_is_the_mean_over_the_whole_input_embedding() -> None:
    reference = torch.randn(77, 768, generator=torch.Generator().manual_seed(0))
    learned = reference.clone()
    learned[5] += 0.1
    code = torch.ones(1, 1)
    expected = torch.nn.functional.mse_loss(learned, reference)
    assert float(anchor_loss(learned[5:6], reference[5:6], code)) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("reduction", ["seq_mean", "dim_mean", "sum", "per_anchor"])
def test_gradient_against_finite_differences(reduction: str) -> None:
    generator = torch.Generator().manual_seed(2)
    vectors = torch.randn(3, 6, generator=generator, dtype=torch.float64).requires_grad_(True)
    dictionary = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    codes = torch.rand(3, 5, generator=generator, dtype=torch.float64)
    codes = codes / codes.sum(1, keepdim=True)
    assert torch.autograd.gradcheck(lambda v: anchor_loss(v, dictionary, codes, reduction), (vectors,))


def test_only_the_vectors_get_a_gradient() -> None:
    vectors, dictionary = torch.randn(1, 4).requires_grad_(True), torch.randn(3, 4).requires_grad_(True)
    codes = torch.full((1, 3), 1 / 3).requires_grad_(True)
    anchor_loss(vectors, dictionary, codes).backward()
    assert vectors.grad is not None and dictionary.grad is None and codes.grad is None


def test_weighted_distances_are_the_distance_to_the_mean_plus_a_constant() -> None:
    generator = torch.Generator().manual_seed(3)
    dictionary = torch.randn(7, 9, generator=generator, dtype=torch.float64)
    codes = torch.rand(1, 7, generator=generator, dtype=torch.float64)
    codes = codes / codes.sum()
    mean = anchor_mean(dictionary, codes)
    spread = [
        float(anchor_loss(v, dictionary, codes, "sum") - (v - mean).square().sum())
        for v in (torch.randn(1, 9, generator=generator, dtype=torch.float64) for _ in range(5))
    ]
    assert max(spread) - min(spread) < 1e-12


def test_with_the_superclass_in_the_dictionary_the_loss_is_the_distance_to_it() -> None:
    dictionary = torch.randn(20, 768, generator=torch.Generator().manual_seed(4))
    codes = sparse_code(dictionary[6], dictionary)[None]
    learned = torch.randn(1, 768, generator=torch.Generator().manual_seed(5))
    expected = (learned - dictionary[6]).square().sum() / (77 * 768)
    assert float(anchor_loss(learned, dictionary, codes)) == pytest.approx(float(expected), rel=1e-6)


def test_pull_on_one_vector_does_not_depend_on_how_many_there_are() -> None:
    dictionary, codes = torch.randn(4, 8), torch.full((3, 4), 0.25)
    three = torch.randn(3, 8).requires_grad_(True)
    one = three.detach()[:1].clone().requires_grad_(True)
    anchor_loss(three, dictionary, codes).backward()
    anchor_loss(one, dictionary, codes[:1]).backward()
    assert three.grad is not None and one.grad is not None
    assert torch.equal(three.grad[:1], one.grad)


def test_at_full_weight_the_token_converges_to_the_mean_of_its_anchors() -> None:
    generator = torch.Generator().manual_seed(6)
    dictionary = torch.randn(5, 16, generator=generator)
    codes = torch.tensor([[0.5, 0.0, 0.3, 0.2, 0.0]])
    learned = torch.nn.Parameter(torch.randn(1, 16, generator=generator))
    optimizer = torch.optim.AdamW([learned], lr=0.02, weight_decay=0.0)
    for _ in range(600):
        optimizer.zero_grad()
        anchor_loss(learned, dictionary, codes).backward()
        optimizer.step()
    assert torch.allclose(learned.detach(), anchor_mean(dictionary, codes), atol=1e-3)


def test_equivalent_weights_of_the_paper() -> None:
    assert equivalent_anchor_weight(0.95, "seq_mean", "dim_mean") == pytest.approx(0.198, abs=5e-4)
    assert equivalent_anchor_weight(0.95, "seq_mean", "sum") == pytest.approx(3.2e-4, abs=2e-6)
    assert equivalent_anchor_weight(0.95, "seq_mean", "seq_mean") == pytest.approx(0.95)
    # .95 / .05 / 59136 · 80 is .025703, and that over 1 more.
    assert equivalent_anchor_weight(0.95, "seq_mean", "per_anchor", anchors=80) == pytest.approx(0.025059, abs=1e-6)
    assert equivalent_anchor_weight(0.0, "seq_mean", "sum") == 0.0
    assert equivalent_anchor_weight(1.0, "seq_mean", "sum") == 1.0


def test_equivalent_weights_balance_the_gradients_alike() -> None:
    dictionary, codes, vector = torch.randn(3, 768), torch.tensor([[0.2, 0.3, 0.5]]), torch.randn(1, 768)

    def balance(weight: float, reduction: str) -> torch.Tensor:
        learned = vector.clone().requires_grad_(True)
        anchor_loss(learned, dictionary, codes, reduction).backward()
        assert learned.grad is not None
        return weight / (1 - weight) * learned.grad

    other = equivalent_anchor_weight(0.95, "seq_mean", "dim_mean")
    assert torch.allclose(balance(0.95, "seq_mean"), balance(other, "dim_mean"), rtol=1e-4)


def test_unknown_reduction_gets_a_sentence() -> None:
    with pytest.raises(UserError, match="anchor_reduction"):
        anchor_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1, 1), "mean")


def test_merging_folds_nouns_with_the_same_tokens() -> None:
    first, second = some_anchors("cat", "dog"), some_anchors("dog", "bird")
    merged = first.merged(second)
    assert merged.words == ("cat", "dog", "bird")
    assert torch.equal(merged.vectors[:2], first.vectors) and torch.equal(merged.vectors[2], second.vectors[1])
    assert merged.merged(merged).words == merged.words


def test_merging_other_widths_gets_a_sentence() -> None:
    with pytest.raises(UserError, match="same text encoder"):
        some_anchors("cat").merged(some_anchors("dog", width=5))


def test_index_ignores_case_and_spacing() -> None:
    anchors = some_anchors("cat", "teddy bear")
    assert anchors.index("Teddy  Bear") == 1 and anchors.index("dog") is None
