"""Sparse codes: hand-computed cases, the identities of the method, and speed."""

from __future__ import annotations

import time

import pytest
import torch

from compinv_core.basics.errors import UserError
from compinv_core.semantic.sparse_coding import CODERS, sparse_code, sparse_coefficients


def random_dictionary(count: int = 80, width: int = 768) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1)) * 0.4


def test_orthogonal_dictionary_gives_the_positive_coordinates() -> None:
    dictionary = torch.diag(torch.tensor([2.0, 5.0, 1.0]))
    # Unit atoms: coefficients 3 and 1; the negative coordinate may not be used.
    code = sparse_code(torch.tensor([3.0, 1.0, -4.0]), dictionary, max_active=3)
    assert code.tolist() == pytest.approx([0.75, 0.25, 0.0])


def test_largest_correlations_are_taken_first() -> None:
    code = sparse_code(torch.tensor([1.0, 3.0, 2.0]), torch.eye(3), max_active=2)
    assert code.tolist() == pytest.approx([0.0, 0.6, 0.4])


def test_refit_corrects_correlated_atoms() -> None:
    # u1 = (1, 0), u2 = (0.6, 0.8); e = 2 u1 + 1 u2 = (2.6, 0.8) has correlations 2.6 and 2.2.
    dictionary = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    coefficients = sparse_coefficients(torch.tensor([2.6, 0.8]), dictionary, max_active=2)
    assert coefficients.tolist() == pytest.approx([2.0, 1.0], abs=1e-6)


def test_refit_drops_an_atom_that_would_turn_negative() -> None:
    # Atoms at 0 and at 25.84 degrees (cosine .9), target (1, -.889): unconstrained the weights were 2.89 and -2.11.
    dictionary = torch.tensor([[1.0, 0.0], [0.9, 0.19**0.5]])
    target = torch.tensor([1.0, (0.5 - 0.9) / 0.19**0.5])
    assert sparse_coefficients(target, dictionary, max_active=2).tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("max_active", [1, 2, 4])
def test_code_is_sparse_nonnegative_and_sums_to_one(coder: str, max_active: int) -> None:
    dictionary = random_dictionary()
    for seed in range(3):
        embedding = torch.randn(768, generator=torch.Generator().manual_seed(100 + seed))
        code = sparse_code(embedding, dictionary, max_active, coder)
        assert code.shape == (80,) and code.dtype == torch.float32
        assert (code >= 0).all() and 1 <= int((code > 0).sum()) <= max_active
        assert float(code.sum()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("coder", CODERS)
def test_an_anchor_is_coded_by_itself_alone(coder: str) -> None:
    dictionary = random_dictionary()
    code = sparse_code(dictionary[17], dictionary, 4, coder)
    assert code[17] == 1.0 and int((code > 0).sum()) == 1


@pytest.mark.parametrize("coder", CODERS)
def test_a_sparse_mixture_is_found_again(coder: str) -> None:
    unit = torch.nn.functional.normalize(random_dictionary(), dim=1)
    embedding = 0.5 * unit[3] + 0.3 * unit[40] + 0.2 * unit[60]
    code = sparse_code(embedding, unit, 3, coder)
    assert set(code.nonzero().flatten().tolist()) == {3, 40, 60}
    if coder == "nn_omp":  # the lasso shrinks
        assert code[[3, 40, 60]].tolist() == pytest.approx([0.5, 0.3, 0.2], abs=1e-6)


@pytest.mark.parametrize("coder", CODERS)
def test_drift_far_from_every_anchor_still_gives_a_code(coder: str) -> None:
    dictionary = torch.tensor([[-1.0, 0.0], [-1.0, -1.0]])
    # Cosines with (1, 0.1): -0.995 and -0.77; the second is the nearer one.
    assert sparse_code(torch.tensor([1.0, 0.1]), dictionary, 2, coder).tolist() == [0.0, 1.0]
    far = 1e4 * torch.randn(768, generator=torch.Generator().manual_seed(5))
    assert float(sparse_code(far, random_dictionary(), 4, coder).sum()) == pytest.approx(1.0, abs=1e-6)


def test_length_of_anchors_and_duplicates_do_not_matter() -> None:
    dictionary = random_dictionary(10)
    embedding = dictionary[:4].mean(0)
    code = sparse_code(embedding, dictionary, 4)
    scaled = sparse_code(embedding, dictionary * torch.arange(1.0, 11.0)[:, None], 4)
    assert torch.allclose(code, scaled, atol=1e-6)
    doubled = sparse_code(embedding, torch.cat([dictionary, dictionary]), 4)
    assert torch.allclose(doubled[:10] + doubled[10:], code, atol=1e-6)


@pytest.mark.parametrize(
    ("embedding", "dictionary", "options", "sentence"),
    [
        (torch.ones(3), torch.zeros(0, 3), {}, "empty"),
        (torch.ones(2), torch.eye(3), {}, "wide"),
        (torch.zeros(3), torch.eye(3), {}, "zero"),
        (torch.tensor([1.0, float("nan"), 0.0]), torch.eye(3), {}, "NaN"),
        (torch.ones(3), torch.eye(3), {"max_active": 0}, "at least 1"),
        (torch.ones(3), torch.eye(3), {"coder": "omp"}, "choose one of"),
    ],
)
def test_bad_input_gets_a_sentence(
    embedding: torch.Tensor, dictionary: torch.Tensor, options: dict, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        sparse_code(embedding, dictionary, **options)


def test_one_vector_against_eighty_anchors_takes_under_two_milliseconds() -> None:
    dictionary, embedding = random_dictionary(), random_dictionary(81)[80]
    sparse_code(embedding, dictionary)
    times = []
    for _ in range(50):
        # Processor time, since other work on the machine is not the coder's.
        start = time.thread_time()
        sparse_code(embedding, dictionary)
        times.append(time.thread_time() - start)
    assert min(times) < 0.002
