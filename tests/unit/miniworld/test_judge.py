"""The judge's loss, and what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from miniworld.laboratory.judging import Judgement, drawn_boxes, judge_pair, judge_two, summary
from miniworld.networks.judge import NOUN_NAMES, Judge
from miniworld.training.judge import Truths, judge_loss, truth
from miniworld.world.instances import INSTANCES, photos
from miniworld.world.scenes import render_scene


@pytest.fixture(scope="module")
def truths() -> Truths:
    rng = np.random.default_rng(0)
    return Truths([truth(render_scene(rng)) for _ in range(12)])


@pytest.mark.parametrize("spoil", ["nothing", "no pattern", "no second object"])
def test_loss_is_finite_whatever_a_batch_lacks(truths, spoil):
    torch.manual_seed(0)
    judge, rows = Judge(), truths.rows.clone()
    if spoil == "no pattern":
        rows[..., 6] = -1
    if spoil == "no second object":
        rows[:, 1] = -1
    loss = judge_loss(judge, truths.pictures.float() / 255, rows, truths.masks, truths.backgrounds)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in judge.parameters())


def test_a_few_steps_lower_the_loss(truths):
    torch.manual_seed(0)
    judge = Judge()
    optimiser = torch.optim.AdamW(judge.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        loss = judge_loss(judge, truths.pictures.float() / 255, truths.rows, truths.masks, truths.backgrounds)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_best_box_is_the_one_at_the_highest_cell(truths):
    verdict = Judge()(truths.pictures[:1].float() / 255)
    cell = int(verdict.centres[0, 3].argmax())
    assert torch.equal(verdict.best_boxes()[0, 3], verdict.boxes[0].flatten(1)[:, cell])
    assert verdict.presence().shape == (1, len(NOUN_NAMES))


def test_summary_counts_by_hand():
    rows = [Judgement(0.9, 0.8, 0.2, 0.5), Judgement(0.9, 0.1, 0.4, 0.7), Judgement(0.2, 0.9, 0.0, None)]
    s = summary(rows)
    assert (s["n"], s["found"]) == (3, 2)
    assert s["own"] == pytest.approx(2 / 3) and s["other"] == pytest.approx(2 / 3) and s["both"] == pytest.approx(1 / 3)
    assert s["text_alignment"] == pytest.approx(2 / 3)
    assert s["image_alignment"] == pytest.approx(0.2) and s["object_alignment"] == pytest.approx(0.6)


def test_two_own_things_are_judged_together():
    cat, ball = INSTANCES["my-cat"], INSTANCES["my-ball"]
    pictures = torch.from_numpy(np.concatenate([photos(cat)[0][:1], photos(ball)[0][:1]])).permute(0, 3, 1, 2) / 255.0
    of_cat, of_ball = judge_pair(pictures, cat, "ball"), judge_pair(pictures, ball, "cat")
    rows = judge_two(pictures, cat, ball)
    for row, a, b in zip(rows, of_cat, of_ball, strict=True):
        assert (row.own, row.other) == (a.own, a.other) == (b.other, b.own)
        assert row.image_alignment == pytest.approx((a.image_alignment + b.image_alignment) / 2)
    # Each photo holds one of the two, so the objects' alignment is that of the one found.
    assert rows[0].object_alignment == of_cat[0].object_alignment and of_ball[0].object_alignment is None
    assert rows[1].object_alignment == of_ball[1].object_alignment and of_cat[1].object_alignment is None
    assert [row.text_alignment for row in rows] == [0.5, 0.5]


def test_drawn_boxes_lie_side_by_side_in_the_picture():
    left, right = drawn_boxes("moon", "boat")
    for x0, y0, x1, y1 in (left, right):
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
    assert left[2] <= right[0]
    assert left[1] < right[1]
