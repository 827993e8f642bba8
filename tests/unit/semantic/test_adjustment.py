"""Repairing and inspecting words: by hand, and one sentence for what cannot be."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from compinv_core.basics.errors import UserError
from compinv_core.semantic.adjustment import SUPERCLASS_SHARE, adjusted, anchor_codes
from compinv_core.semantic.anchors import Anchors
from compinv_core.semantic.inspection import Vocabulary, inspect
from compinv_core.semantic.word_map import SIDE, draw_word_map

WORDS = Anchors(("cat", "dog", "boat"), torch.tensor([[2.0, 0, 0], [0, 1.0, 0], [0, 0, 4.0]]), ((1,), (2,), (3,)))


def test_turning_and_shortening_by_hand() -> None:
    vector, point = torch.tensor([[0.0, 8.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    assert torch.allclose(adjusted(vector, point, 0.0, 2.0, 0.0), vector)
    # A third of a right angle, at the length of a word.
    expected = 2 * torch.tensor([[0.5, math.sqrt(0.75), 0.0]])
    assert torch.allclose(adjusted(vector, point, 1 / 3, 2.0), expected, atol=1e-6)
    assert torch.allclose(adjusted(vector, point, 1.0, 2.0), point, atol=1e-6)
    # Half of the way from 8 to 2 on a logarithmic scale is 4.
    assert torch.allclose(adjusted(vector, point, 0.0, 2.0, 0.5), torch.tensor([[0.0, 4.0, 0.0]]))


def test_towards_the_class_noun_alone_it_is_test_time_embedding_adjustment() -> None:
    generator = torch.Generator().manual_seed(2)
    word, noun = torch.randn(1, 9, generator=generator, dtype=torch.float64) * 7, torch.randn(1, 9, generator=generator)
    noun, share = noun.double(), 0.2
    length = float(noun.norm())
    # Both to the length of the noun, and between them on the circle.
    shortened = word * length / word.norm()
    angle = torch.cosine_similarity(word, noun).acos()
    expected = (((1 - share) * angle).sin() * shortened + (share * angle).sin() * noun) / angle.sin()
    assert torch.allclose(adjusted(word, noun, share, length), expected)


def test_a_word_at_its_point_or_opposite_stays_finite() -> None:
    point = torch.tensor([[2.0, 0.0, 0.0]]).repeat(2, 1)
    turned = adjusted(torch.cat([point[:1], -point[:1]]), point, 0.4, 2.0)
    assert turned.isfinite().all() and torch.allclose(turned[0], point[0])


def test_codes_leave_out_what_explains_next_to_nothing() -> None:
    vectors = torch.tensor([[3.0, 1.0, 0.0], [10.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    mixed, nearly_one = anchor_codes(vectors[:2], WORDS)
    assert mixed.tolist() == pytest.approx([0.75, 0.25, 0.0])
    assert nearly_one.tolist() == pytest.approx([1.0, 0.0, 0.0])
    with pytest.raises(UserError, match="zero or not finite; choose another embedding"):
        anchor_codes(vectors[2:], WORDS)


def test_the_class_noun_keeps_its_share() -> None:
    (code,) = anchor_codes(torch.tensor([[0.0, 3.0, 3.0]]), WORDS, superclass=0)
    assert float(code[0]) == pytest.approx(SUPERCLASS_SHARE) and float(code.sum()) == pytest.approx(1)
    # A drifted word leans on no noun really; then its class noun is all there is.
    generator = torch.Generator().manual_seed(0)
    wide = Anchors(("cat", "dog"), F.normalize(torch.randn(2, 768, generator=generator), dim=1), ((1,), (2,)))
    (code,) = anchor_codes(torch.randn(1, 768, generator=generator) * 0.3, wide, superclass=1)
    assert code.tolist() == [0.0, 1.0]


@pytest.fixture
def vocabulary() -> Vocabulary:
    generator = torch.Generator().manual_seed(3)
    cloud = 0.4 * F.normalize(torch.randn(300, 64, generator=generator), dim=1)
    return Vocabulary([f"word{i}" for i in range(300)], cloud)


@pytest.mark.parametrize(
    ("mixture", "words"),
    [((1.0, 0.1, 1.0), "stands near"), ((1.0, 1.3, 1.0), "has moved away"), ((0.1, 1.0, 1.0), "has left the nouns")],
)
def test_the_verdict_follows_the_direction(vocabulary: Vocabulary, mixture: tuple, words: str) -> None:
    noun, other = vocabulary.vectors[0], vocabulary.vectors[1]
    anchors = Anchors(("word0",), noun[None], ((0,),))
    near, far, length = mixture
    found = inspect(((near * noun + far * other) * length)[None], anchors, vocabulary, 0)
    assert words in found.verdict and "no fault" not in found.verdict
    (facts,) = found.vectors
    assert facts.nearest[0][0] in ("word0", "word1") and facts.anchors == {"word0": 1.0} and facts.entropy == 0


def test_a_long_word_is_not_called_broken(vocabulary: Vocabulary) -> None:
    anchors = Anchors(("word0",), vocabulary.vectors[:1], ((0,),))
    found = inspect(20 * vocabulary.vectors[:1], anchors, vocabulary, 0)
    assert found.verdict.startswith("The word stands near its nouns")
    assert "Its length of 8, where words have 0.4, is no fault by itself" in found.verdict
    assert found.vectors[0].norm_percentile == 100 and found.vectors[0].distance_percentile == 0
    assert "cosine 1.00 with its anchors (word0 1.00)" in found.text


def test_a_word_far_from_all_words_is_farther_than_most_are_from_one_another(vocabulary: Vocabulary) -> None:
    generator = torch.Generator().manual_seed(5)
    lonely = torch.randn(64, generator=generator)
    basis = torch.linalg.svd(vocabulary.vectors[:40]).Vh[:40]
    anchors = Anchors(("word0",), vocabulary.vectors[:1], ((0,),))
    few = Vocabulary(vocabulary.names[:40], vocabulary.vectors[:40])
    outside = lonely - basis.T @ (basis @ lonely)
    assert inspect(outside[None], anchors, few, 0).vectors[0].distance_percentile > 95


def test_the_map_is_a_picture_with_the_word_on_it(vocabulary: Vocabulary) -> None:
    anchors = Anchors(("word0", "word1", "word2"), vocabulary.vectors[:3], ((0,), (1,), (2,)))
    picture = draw_word_map(torch.randn(2, 64), anchors, vocabulary.vectors, "my-cat")
    assert picture.shape == (1, SIDE, SIDE, 3) and 0 <= picture.min() < picture.max() <= 1
    orange = torch.tensor([0xD5, 0x5E, 0x00]) / 255
    assert ((picture - orange).abs().amax(-1) < 0.01).sum() > 300
    # One anchor alone has no spread of its own.
    single = Anchors(("word0",), vocabulary.vectors[:1], ((0,),))
    assert draw_word_map(torch.randn(1, 64), single, vocabulary.vectors, "my-cat").isfinite().all()
