"""The composition score by hand."""

from __future__ import annotations

import math

import pytest
import torch

from compinv_core.semantic.composition import Composition


def test_a_word_that_shares_as_its_noun_does_scores_one() -> None:
    shares = torch.tensor([[0.3, 0.2], [0.1, 0.4]])
    found = Composition.of(2 * shares, shares)
    assert found.score == pytest.approx(1.0) and found.takes == pytest.approx(1.0)


def test_a_dominating_word_by_hand() -> None:
    # Ratios 6 and 2 of the word, 1.5 and 0.5 of the noun: four times as much beside either neighbour.
    word, noun = torch.tensor([[0.6, 0.1], [0.4, 0.2]]), torch.tensor([[0.3, 0.2], [0.1, 0.2]])
    found = Composition.of(word, noun)
    assert found.takes == pytest.approx(4.0) and found.score == pytest.approx(0.25)


def test_too_much_and_too_little_do_not_cancel_in_the_score() -> None:
    noun = torch.tensor([[0.2, 0.2], [0.2, 0.2]])
    found = Composition.of(torch.tensor([[0.4, 0.1], [0.1, 0.4]]), noun)
    assert found.takes == pytest.approx(1.0) and found.score == pytest.approx(0.25)


def test_no_attention_at_all_is_a_number() -> None:
    found = Composition.of(torch.tensor([[0.5, 0.0]]), torch.tensor([[0.5, 0.5]]))
    assert 0 <= found.score < 1e-6 and math.isfinite(found.takes)
