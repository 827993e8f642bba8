"""Numbers of recorded attention, against values worked out by hand."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace

import pytest
import torch

from compinv_core.basics.errors import UserError
from compinv_core.boxes.layout import Layout
from compinv_core.recording.measures import (
    attention_curves,
    attention_report,
    attention_similarity,
    box_shares,
    boxes_for,
    frames_at,
    mean_map,
)
from compinv_core.recording.record import AttentionFrame, AttentionRecord, merge_maps
from compinv_core.spatial.attention import BlockAttention, BlockMaps, reduce_block
from compinv_core.spatial.guidance import layout_loss
from compinv_core.spatial.settings import GuidanceConfig

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


def maps(*phrases: list[list[float]]) -> tuple[BlockMaps, ...]:
    """One image; a map per phrase."""
    return (BlockMaps(torch.tensor([phrases])),)


SPLIT = maps([[3.0, 1.0]], [[0.0, 2.0]])
EVEN = maps([[1.0, 1.0]], [[1.0, 1.0]])


def record(boxes: tuple = (LEFT, RIGHT), phrases: tuple = ("a cat", "a ball"), frames: tuple | None = None):
    frames = frames or (AttentionFrame(0, 9.0, SPLIT, EVEN), AttentionFrame(2, 1.0, EVEN))
    return AttentionRecord("a cat and a ball", phrases, boxes, frames, 4, 8, 16, "sample_euler", 7, "SD15")


def test_coarse_maps_are_repeated_and_weighted() -> None:
    fine, coarse = BlockMaps(torch.tensor([[[[0.0, 1.0, 2.0, 3.0]]]])), BlockMaps(torch.tensor([[[[4.0, 8.0]]]]), 3)
    assert mean_map([coarse, fine]).tolist() == [[[[3.0, 3.25, 6.5, 6.75]]]]


def test_similarity_is_the_cosine_of_the_maps() -> None:
    attention = torch.tensor([[[[1.0, 0.0]], [[0.0, 5.0]], [[3.0, 4.0]], [[30.0, 40.0]], [[0.0, 0.0]]]])
    expected = torch.tensor(
        [
            [1.0, 0.0, 0.6, 0.6, 0.0],
            [0.0, 1.0, 0.8, 0.8, 0.0],
            [0.6, 0.8, 1.0, 1.0, 0.0],
            [0.6, 0.8, 1.0, 1.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 0.0],
        ]
    )
    torch.testing.assert_close(attention_similarity(attention)[0], expected)


def test_share_inside_the_box_is_weighted_by_blocks() -> None:
    two = [BlockMaps(torch.tensor([[[[3.0, 1.0]]]])), BlockMaps(torch.tensor([[[[1.0, 1.0, 1.0, 5.0]]]]), 3)]
    assert box_shares(two, [LEFT]).item() == pytest.approx((0.75 + 3 * 0.25) / 4)


def test_share_is_what_the_linear_loss_leaves() -> None:
    generator = torch.Generator().manual_seed(0)
    blocks = [
        BlockAttention(torch.rand(2, 4, h * w, 77, generator=generator).softmax(-1), h, w)
        for h, w in ((4, 6), (8, 12), (4, 6))
    ]
    spans, boxes = [(1, 2), (5,)], [(0.0, 0.0, 0.4, 0.6), RIGHT]
    loss = layout_loss(blocks, spans, boxes, GuidanceConfig(loss="linear"))
    shares = box_shares(merge_maps(reduce_block(block, spans) for block in blocks), boxes)
    torch.testing.assert_close(1 - shares.mean(1), loss)


def test_curves_before_and_after_guidance() -> None:
    curves = attention_curves(record(), (LEFT, RIGHT))
    assert curves.steps == (0, 2) and curves.guided_steps == (0,)
    assert curves.pairs == ((0, 1),) and curves.boxed == (0, 1)
    torch.testing.assert_close(curves.similarity[:, 0, 0], torch.tensor([2 / math.sqrt(40), 1.0]))
    torch.testing.assert_close(curves.similarity_unguided[:, 0, 0], torch.tensor([1.0, torch.nan]), equal_nan=True)
    torch.testing.assert_close(curves.mass[:, 0], torch.tensor([[0.75, 1.0], [0.5, 0.5]]))
    assert curves.mass_unguided[0, 0].tolist() == [0.5, 0.5]
    assert curves.mass_unguided[1].isnan().all()


def with_numbers(maps_of: tuple[BlockMaps, ...], logit: list[float], mass: list[float]) -> tuple[BlockMaps, ...]:
    return (replace(maps_of[0], logit=torch.tensor([logit]), mass=torch.tensor([mass])),)


def test_numbers_of_both_phrases_over_the_steps() -> None:
    before, after = with_numbers(EVEN, [0.5, -0.5], [0.3, 0.1]), with_numbers(SPLIT, [0.25, 0.0], [0.25, 0.2])
    coarse = with_numbers((BlockMaps(EVEN[0].values[..., :1], 3),), [1.0, -1.0], [0.5, 0.25])
    whole = record(frames=(AttentionFrame(0, 9.0, after, before), AttentionFrame(2, 1.0, (*before, *coarse))))
    curves = attention_curves(whole, whole.boxes)
    torch.testing.assert_close(curves.logit[:, 0], torch.tensor([[0.25, 0.0], [0.875, -0.875]]))
    torch.testing.assert_close(curves.share[:, 0], torch.tensor([[0.25, 0.2], [0.45, 0.2125]]))
    assert curves.logit_unguided[0, 0].tolist() == [0.5, -0.5] and curves.share_unguided[1].isnan().all()
    (row,) = attention_report(whole, curves, whole.boxes).rows
    assert row["query-key similarity"] == {"a cat": [0.25, 0.875], "a ball": [0.0, -0.875]}
    assert row["query-key similarity before guidance"] == {"a cat": [0.5, None], "a ball": [-0.5, None]}
    assert row["attention mass"] == {"a cat": [0.25, 0.45], "a ball": [0.2, 0.2125]}


def test_a_record_of_an_earlier_version_has_no_numbers_and_is_read() -> None:
    old = BlockMaps(SPLIT[0].values)
    for name in ("logit", "mass"):
        del old.__dict__[name]
    whole = pickle.loads(pickle.dumps(record(frames=(AttentionFrame(0, 9.0, (old,)),))))
    curves = attention_curves(whole, whole.boxes)
    assert curves.logit.isnan().all() and curves.share.isnan().all() and curves.similarity.isfinite().all()
    assert attention_report(whole, curves, whole.boxes).rows[0]["attention mass"] == {"a cat": [None], "a ball": [None]}


def test_one_phrase_and_no_box_have_no_measures() -> None:
    single = record((None,), ("a cat",), (AttentionFrame(0, 9.0, maps([[3.0, 1.0]]), maps([[1.0, 1.0]])),))
    curves = attention_curves(single, (None,))
    assert curves.pairs == () and curves.boxed == () and curves.guided_steps == (0,)
    report = attention_report(single, curves, (None,))
    assert report.rows[0]["similarity"] == {} and report.rows[0]["in-box mass"] == {}


def test_only_phrases_with_a_box_have_a_share() -> None:
    curves = attention_curves(record(), (None, RIGHT))
    assert curves.boxed == (1,)
    assert curves.mass[:, 0, 0].tolist() == [1.0, 0.5]


def test_a_layout_takes_the_place_of_the_recorded_boxes() -> None:
    unguided = record((None, None), ("embedding:my-cat cat", "a ball"))
    assert boxes_for(unguided) == (None, None)
    assert boxes_for(unguided, Layout(("my-cat Cat", "a tree"), (LEFT, RIGHT), 64, 64)) == (LEFT, None)
    assert boxes_for(record(), Layout((), (), 64, 64)) == (None, None)
    emphasised = Layout(("(a Ball:1.2),", "“my-cat cat”"), (LEFT, RIGHT), 64, 64)
    assert boxes_for(unguided, emphasised) == (RIGHT, LEFT)
    twice = Layout(("a cat,", "a cat"), (LEFT, RIGHT), 64, 64)
    assert boxes_for(record((None, None), ("a cat", "a cat,")), twice) == (RIGHT, LEFT)
    with pytest.raises(
        UserError, match="`layout` has boxes for a tree, but embedding:my-cat cat, a ball was recorded;"
    ):
        boxes_for(unguided, Layout(("a tree",), (LEFT,), 64, 64))


def test_steps_are_chosen_by_number() -> None:
    whole = record()
    assert frames_at(whole, -1) == whole.frames
    assert frames_at(whole, 2) == whole.frames[1:]
    with pytest.raises(UserError, match="`step` is 4, but the sampling had 4 steps; choose 0 to 3"):
        frames_at(whole, 4)
    with pytest.raises(UserError, match="nothing was recorded at step 1.*; choose one of 0, 2"):
        frames_at(whole, 1)


def test_the_report_has_every_image_and_no_nan() -> None:
    whole = record()
    report = attention_report(whole, attention_curves(whole, whole.boxes), whole.boxes)
    content = json.loads(report.to_json())
    assert content["seeds"] == [7] and content["models"] == {"model": "SD15"}
    assert content["settings"]["boxes"] == {"a cat": list(LEFT), "a ball": list(RIGHT)}
    assert content["settings"]["guided steps"] == [0]
    assert content["summary"]["mean in-box mass"] == {"a cat": 0.625, "a ball": 0.75}
    (row,) = content["rows"]
    assert row["similarity"] == {"a cat / a ball": [0.316228, 1.0]}
    assert row["similarity before guidance"] == {"a cat / a ball": [1.0, None]}
    assert row["in-box mass before guidance"] == {"a cat": [0.5, None], "a ball": [0.5, None]}
