"""From softmaxed attention to one map per phrase."""

from __future__ import annotations

import pytest
import torch

from compinv_core.spatial.attention import (
    BlockAttention,
    attention_weights,
    maps_by_resolution,
    mean_logits,
    phrase_maps,
    reduce_block,
)


def test_weights_are_the_softmax_of_scaled_products() -> None:
    # One image, two heads of width 1, one cell, two tokens.
    query = torch.tensor([[[2.0, 1.0]]])
    key = torch.tensor([[[1.0, 0.0], [0.0, 3.0]]])
    weights = attention_weights(query, key, heads=2)
    expected = torch.stack([torch.tensor([2.0, 0.0]).softmax(0), torch.tensor([0.0, 3.0]).softmax(0)])
    torch.testing.assert_close(weights[0, :, 0], expected)


def test_weights_are_float32_or_better() -> None:
    half = torch.randn(1, 3, 8, dtype=torch.float16)
    assert attention_weights(half, half, heads=2).dtype == torch.float32
    assert attention_weights(half.double(), half.double(), heads=2).dtype == torch.float64


def test_scale_is_the_head_width() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 5, 12, generator=generator), torch.randn(2, 7, 12, generator=generator)
    weights = attention_weights(query, key, heads=3)
    one = (query[1, 4, 4:8] @ key[1, :, 4:8].T / 2.0).softmax(-1)
    torch.testing.assert_close(weights[1, 1, 4], one)


def test_mean_logits_by_hand() -> None:
    # Two cells, two heads of width 1: the first head's products with token 1 are 2 and 4, the second's 3 and -1.
    query, key = torch.tensor([[[2.0, 3.0], [4.0, -1.0]]]), torch.tensor([[[0.0, 5.0], [1.0, 1.0]]])
    assert mean_logits(query, key, heads=2).tolist() == [[(15 - 5) / 4, (2 + 4 + 3 - 1) / 4]]
    # One head of width 2 instead: sums of products, by the square root of 2.
    assert mean_logits(query, key, heads=1)[0].tolist() == pytest.approx([5 / 2**0.5, (5 + 3) / 2 / 2**0.5])


def test_numbers_of_a_phrase_by_hand() -> None:
    # One head, two cells; tokens: start, three words, end.
    weights = torch.tensor([[[[0.5, 0.1, 0.2, 0.1, 0.1], [0.3, 0.3, 0.2, 0.1, 0.1]]]])
    logits = torch.tensor([[9.0, 1.0, 2.0, 6.0, 7.0]])
    reduced = reduce_block(BlockAttention(weights, 1, 2, logits), [(1, 2), (3,)], content=(1, 2, 3))
    assert reduced.mass is not None and reduced.logit is not None
    torch.testing.assert_close(reduced.mass, torch.tensor([[0.4, 0.1]]))
    torch.testing.assert_close(reduced.logit, torch.tensor([[1.5 - 3.0, 6.0 - 3.0]]))
    assert reduce_block(BlockAttention(weights, 1, 2), [(1, 2)], content=(1, 2, 3)).logit is None


def test_the_logit_is_the_mean_logarithm_of_the_attention_over_that_of_the_average_word() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, n, 12, dtype=torch.float64, generator=generator) for n in (6, 9))
    block = BlockAttention(attention_weights(query, key, 3), 2, 3, mean_logits(query, key, 3))
    reduced = reduce_block(block, [(1, 2), (4,)], content=(1, 2, 3, 4))
    logarithms = block.weights.log().mean((1, 2))
    expected = torch.stack([logarithms[:, 1:3].mean(1), logarithms[:, 4]], dim=1) - logarithms[:, 1:5].mean(1)[:, None]
    torch.testing.assert_close(reduced.logit, expected)


def test_a_phrase_is_the_mean_of_its_tokens_in_any_chunk() -> None:
    weights = torch.zeros(1, 1, 6, 154)
    weights[0, 0, :, 76] = torch.arange(6.0)
    weights[0, 0, :, 78] = 2.0
    maps = phrase_maps(BlockAttention(weights, 2, 3), [(76, 78), (78,)])
    assert maps.shape == (1, 1, 2, 2, 3)
    assert maps[0, 0, 0].tolist() == [[1.0, 1.5, 2.0], [2.5, 3.0, 3.5]]
    assert maps[0, 0, 1].tolist() == [[2.0] * 3] * 2


def test_second_half_of_the_heads() -> None:
    weights = torch.arange(4.0).view(1, 4, 1, 1).expand(1, 4, 1, 77)
    block = BlockAttention(weights, 1, 1)
    assert phrase_maps(block, [(1,)], "second half").flatten().tolist() == [2.0, 3.0]
    assert phrase_maps(block, [(1,)], "all").flatten().tolist() == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="heads"):
        phrase_maps(block, [(1,)], "odd")


def test_blocks_of_one_resolution_come_together() -> None:
    blocks = [BlockAttention(torch.rand(2, 8, h * w, 77), h, w) for h, w in ((4, 6), (8, 12), (4, 6))]
    grouped = maps_by_resolution(blocks, [(1,), (2, 3), (4,)])
    assert {key: tuple(maps.shape) for key, maps in grouped.items()} == {
        (4, 6): (2, 2, 8, 3, 4, 6),
        (8, 12): (2, 1, 8, 3, 8, 12),
    }
