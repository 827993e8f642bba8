"""A word in several text encoders: each part coded, held and weighed in its own, all of them one for the training."""

from __future__ import annotations

import pytest
import torch

from compinv_core.basics.errors import UserError
from compinv_core.semantic.anchors import Anchors, anchor_loss, weighed_alike
from compinv_core.semantic.hold import Hold
from compinv_core.semantic.learned_token import LearnedToken, LearnedWord
from compinv_core.semantic.recoding import AnchorRecoder, RecoderSettings
from compinv_core.semantic.widths import names_of, parts_of

WIDTHS = {"clip_l": 2, "clip_g": 3}
ANCHORS = Anchors(
    ("cat", "dog"),
    torch.tensor([[1.0, 0.0, 0.0, 2.0, 0.0], [0.0, 1.0, 2.0, 0.0, 0.0]]),
    ((1,), (2,)),
    WIDTHS,
)


def word(vectors: torch.Tensor, hold: Hold | None = None, every: int = 0) -> LearnedWord:
    tokens = []
    for part, nouns in zip(parts_of(vectors, WIDTHS), ANCHORS.parts(), strict=True):
        recoder = AnchorRecoder(nouns, 0, len(vectors), RecoderSettings(recode_every=every, momentum=0.0))
        tokens.append(LearnedToken(part, recoder, "sum", hold))
    return LearnedWord(tokens, WIDTHS)


def test_parts_are_cut_at_the_widths_and_one_encoder_is_the_whole() -> None:
    first, second = ANCHORS.parts()
    assert torch.equal(first.vectors, ANCHORS.vectors[:, :2]) and torch.equal(second.vectors, ANCHORS.vectors[:, 2:])
    assert first.words == ANCHORS.words and not first.widths
    plain = torch.ones(2, 5)
    assert parts_of(plain, {})[0] is plain and names_of({"clip_h": 5}) == [""] and names_of(WIDTHS) == list(WIDTHS)


def test_anchors_of_several_encoders_merge_with_their_like() -> None:
    more = Anchors(("bird",), torch.ones(1, 5), ((3,),), WIDTHS)
    merged = ANCHORS.merged(more)
    assert merged.words == ("cat", "dog", "bird") and merged.widths == WIDTHS
    with pytest.raises(UserError, match="same text encoder"):
        ANCHORS.merged(Anchors(("bird",), torch.ones(1, 4), ((3,),)))


def test_the_anchor_loss_is_the_mean_of_the_encoders_own() -> None:
    vectors = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0]])
    found = word(vectors).anchor_loss(vectors)
    # Held by the class noun alone: 1 in the first text encoder, 4 in the second.
    assert found is not None and float(found) == pytest.approx((1 + 4) / 2)
    parts = [anchor_loss(p, a.vectors, torch.tensor([[1.0, 0.0]]), "dim_mean") for p, a in zip(
        parts_of(vectors, WIDTHS), ANCHORS.parts(), strict=True)]  # fmt: skip
    assert [float(part) for part in parts] == pytest.approx([1 / 2, 4 / 3])


def test_each_part_is_held_at_its_own_distance() -> None:
    held = word(torch.tensor([[4.0, 0.0, 0.0, 5.0, 0.0]]), Hold("radius", radius=0.5))
    held.after_step(0)
    # Half of the noun's length, 1 and 2, from where it stands.
    assert held.vectors.detach().tolist() == [[1.5, 0.0, 0.0, 3.0, 0.0]]


def test_each_part_is_coded_over_its_own_dictionary() -> None:
    coded = word(torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0]]), every=1)
    coded.after_step(0)
    # The first part is a dog, of which the class noun keeps a quarter; the second a cat.
    assert coded.active_anchors() == pytest.approx({"cat": (0.25 + 1) / 2, "dog": 0.75 / 2})
    assert list(weighed_alike([{"a": 0.2, "b": 0.8}, {"a": 1.0}])) == ["a", "b"]


def test_all_parameters_get_a_gradient_and_the_state_comes_back() -> None:
    one, other = word(torch.rand(2, 5), every=1), word(torch.rand(2, 5), every=1)
    assert one.vectors.shape == (2, 5) and len(one.parameters) == 2 and not one.takes_own_steps
    one.vectors.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in one.parameters)
    one.after_step(0)
    state = {name: tensor.clone() for name, tensor in one.state_tensors().items()}
    assert set(state) == {"vectors.clip_l", "codes.clip_l", "vectors.clip_g", "codes.clip_g"}
    other.load_state_tensors(state)
    assert torch.equal(other.vectors, one.vectors) and other.active_anchors() == one.active_anchors()


def test_without_anchors_there_is_no_anchor_loss() -> None:
    free = LearnedWord([LearnedToken(torch.ones(1, 2)), LearnedToken(torch.ones(1, 3))], WIDTHS)
    assert free.anchor_loss(free.vectors) is None and free.active_anchors() == {}
    free.after_step(0)
