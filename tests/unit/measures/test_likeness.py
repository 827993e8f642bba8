"""Alignments by hand, and against torchmetrics where the definitions meet."""

from __future__ import annotations

import pytest
import torch

from compinv_core.measures.likeness import cosines, identity, image_alignment, text_alignment

EAST, NORTH = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 3.0])


def test_alignments_by_hand() -> None:
    pictures = torch.stack([EAST, EAST + 2 / 3 * NORTH, -EAST])
    assert cosines(pictures, EAST[None])[:, 0].tolist() == pytest.approx([1, 0.5**0.5, -1])
    assert text_alignment(torch.tensor([0.4, -0.3])).tolist() == pytest.approx([1.0, 0.0])
    both = image_alignment(pictures, torch.stack([EAST, NORTH]))
    assert both.tolist() == pytest.approx([0.5, 0.5**0.5, -0.5])


def test_the_mean_over_pictures_is_that_over_all_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures, photos = torch.randn(5, 7, generator=generator), torch.randn(3, 7, generator=generator)
    pairs = [torch.cosine_similarity(a, b, dim=0) for a in pictures for b in photos]
    assert float(image_alignment(pictures, photos).mean()) == pytest.approx(float(torch.stack(pairs).mean()))


def test_features_of_zeros_are_like_nothing() -> None:
    assert cosines(torch.zeros(1, 2), EAST[None]).item() == 0


def test_identity_names_the_thing_that_a_picture_is_most_like() -> None:
    things = [torch.stack([EAST, EAST + 0.1 * NORTH]), NORTH[None], -EAST[None]]
    shares = identity(torch.stack([EAST, NORTH, EAST + 2 / 3 * NORTH]), things)
    assert shares.argmax(1).tolist()[:2] == [0, 1]
    assert shares.sum(1).tolist() == pytest.approx([1, 1, 1])
    # As like the one as the other: it is unsure.
    assert shares[2, :2].max() < 0.9 and shares[0].max() > 0.999
