"""The sparse code while the embedding moves."""

from __future__ import annotations

import logging

import pytest
import torch

from compinv_core.semantic.anchors import Anchors
from compinv_core.semantic.recoding import AnchorRecoder, RecoderSettings

EYE = Anchors(("cat", "dog", "bird", "fish"), torch.eye(4), ((1,), (2,), (3,), (4,)))


def test_first_code_is_the_superclass_for_every_vector() -> None:
    recoder = AnchorRecoder(EYE, 1, 3, RecoderSettings())
    assert recoder.codes.tolist() == [[0.0, 1.0, 0.0, 0.0]] * 3
    assert recoder.active() == {"dog": 1.0}


def test_recodes_only_when_due() -> None:
    recoder = AnchorRecoder(EYE, 0, 1, RecoderSettings(recode_every=5))
    vector = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert [recoder.after_step(step, vector) for step in range(10)] == [False] * 4 + [True] + [False] * 4 + [True]


def test_moving_average_by_hand() -> None:
    recoder = AnchorRecoder(EYE, 0, 1, RecoderSettings(recode_every=1, momentum=0.5, superclass_share=0.0))
    vector = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    recoder.after_step(0, vector)
    # half of (1, 0) and half of (.5, .5)
    assert recoder.codes[0].tolist() == pytest.approx([0.75, 0.25, 0.0, 0.0])
    recoder.after_step(1, vector)
    assert recoder.codes[0].tolist() == pytest.approx([0.625, 0.375, 0.0, 0.0])


def test_superclass_never_leaves_and_the_rest_share_what_remains() -> None:
    settings = RecoderSettings(recode_every=1, momentum=0.0, superclass_share=0.25)
    recoder = AnchorRecoder(EYE, 3, 1, settings)
    recoder.after_step(0, torch.tensor([[2.0, 1.0, 0.0, 0.0]]))
    assert recoder.codes[0].tolist() == pytest.approx([0.5, 0.25, 0.0, 0.25])


def test_an_anchor_that_explains_next_to_nothing_stays_out() -> None:
    recoder = AnchorRecoder(EYE, 0, 1, RecoderSettings(recode_every=1, momentum=0.0))
    recoder.after_step(0, torch.tensor([[3.0, 0.29, 1.0, 0.0]]))
    # 0.29 is less than a tenth of the length, 3.18.
    assert recoder.codes[0].tolist() == pytest.approx([0.75, 0.0, 0.25, 0.0])


def test_a_word_that_no_anchor_explains_is_held_by_its_class_alone() -> None:
    wide = Anchors(("cat", "dog"), torch.eye(2, 50), ((1,), (2,)))
    recoder = AnchorRecoder(wide, 1, 1, RecoderSettings(recode_every=1, momentum=0.0))
    recoder.after_step(0, torch.cat([torch.tensor([0.05, 0.02]), torch.full((48,), 1.0)])[None])
    assert recoder.codes[0].tolist() == [0.0, 1.0]


def test_never_more_active_anchors_than_allowed() -> None:
    recoder = AnchorRecoder(EYE, 0, 1, RecoderSettings(max_active=2, recode_every=1))
    for step, vector in enumerate(torch.eye(4)):
        recoder.after_step(step, vector[None])
        code = recoder.codes[0]
        assert int((code > 0).sum()) <= 2 and code[0] >= 0.25 and float(code.sum()) == pytest.approx(1.0)


def test_one_active_anchor_leaves_the_superclass_alone() -> None:
    recoder = AnchorRecoder(EYE, 2, 1, RecoderSettings(max_active=1, recode_every=1))
    recoder.after_step(0, torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    assert recoder.codes[0].tolist() == [0.0, 0.0, 1.0, 0.0]


def test_vectors_that_are_no_longer_finite_keep_their_code() -> None:
    recoder = AnchorRecoder(EYE, 0, 1, RecoderSettings(recode_every=1))
    assert not recoder.after_step(0, torch.tensor([[1.0, float("nan"), 0.0, 0.0]]))
    assert recoder.codes[0].tolist() == [1.0, 0.0, 0.0, 0.0]


def test_zero_interval_keeps_the_first_code() -> None:
    recoder = AnchorRecoder(EYE, 0, 1, RecoderSettings(recode_every=0))
    assert not any(recoder.after_step(step, torch.ones(1, 4)) for step in range(300))


def test_log_names_anchors_and_the_nearest_token(caplog: pytest.LogCaptureFixture) -> None:
    recoder = AnchorRecoder(EYE, 0, 1, RecoderSettings(recode_every=1), lambda vector: ("kitten", 0.9))
    with caplog.at_level(logging.INFO, "compinv"):
        recoder.after_step(0, torch.tensor([[3.0, 1.0, 0.0, 0.0]]))
    assert "cat 0.750, dog 0.250 (sum before normalising 4.0000" in caplog.text
    assert "nearest token 'kitten' at cosine 0.900" in caplog.text
