"""The predictor's symmetries, three and more concepts, nouns it does not know, and its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from compinv_core.basics.errors import UserError
from compinv_core.boxes.geometry import inside_picture, largest_pairwise_iou, mirrored
from compinv_core.layouts.predictor import (
    LayoutPredictor,
    PairNetwork,
    SideBySide,
    nearest_noun,
    predict_boxes,
    require_width,
)
from compinv_core.layouts.predictor_file import read_predictor, write_predictor

WIDTH = 16


def network(seed: int = 0) -> PairNetwork:
    """A network with random weights everywhere, so that no symmetry comes from zeros."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = PairNetwork(WIDTH, hidden=8).eval()
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
    return made.requires_grad_(False)


def features(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def predictor(**changes) -> LayoutPredictor:
    settings = {
        "name": "p", "network": network(), "vocabulary": ("cat", "boat"), "features": "refined",
        "template": "a {} and a {}", "text_encoder": "abc", "metadata": {"detector": "d"},
    }  # fmt: skip
    return LayoutPredictor(**{**settings, **changes})


def test_swapping_the_concepts_swaps_the_boxes() -> None:
    first, second = features(32).split(16)
    one, two = network()(first, second)
    other_two, other_one = network()(second, first)
    assert torch.equal(one, other_one) and torch.equal(two, other_two)
    assert not torch.allclose(one, two)


def test_a_box_on_the_right_is_the_mirror_image_of_one_on_the_left() -> None:
    net, (first, second) = network(), features(32).split(16)
    one, two = net(first, second)
    net.side.weight.neg_()
    turned_one, turned_two = net(first, second)
    torch.testing.assert_close(turned_one, mirrored(one))
    torch.testing.assert_close(turned_two, mirrored(two))


def test_concepts_never_stand_in_a_circle() -> None:
    net, (a, b, c) = network(), features(3)
    torch.testing.assert_close(net.order(a, b) + net.order(b, c), net.order(a, c))


def test_two_concepts_are_eq_8() -> None:
    net, seen = network(), features(2)
    boxes = predict_boxes(net, 2, lambda i, j: (seen[i], seen[j]))
    expected = inside_picture(torch.cat(net(seen[:1], seen[1:])).double())
    assert boxes == tuple(map(tuple, expected.tolist()))


def test_of_three_concepts_each_gets_the_mean_of_its_pairs() -> None:
    net, seen = network(), features(3)
    # One box per concept, wherever the others are, and small enough not to overlap.
    net.box.weight.zero_()
    net.box.bias.copy_(torch.logit(torch.tensor([0.1, 0.5, 0.15, 0.15])))
    boxes = predict_boxes(net, 3, lambda i, j: (seen[i], seen[j]))
    # The concept in the middle is on the right of one and on the left of the other: the mean of x = 0.1 and 0.9.
    assert sorted((x0 + x1) / 2 for x0, _, x1, _ in boxes) == pytest.approx([0.1, 0.5, 0.9], abs=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_three_concepts_stay_inside_and_apart(seed: int) -> None:
    seen = features(3, seed)
    boxes = predict_boxes(network(seed), 3, lambda i, j: (seen[i], seen[j]))
    assert largest_pairwise_iou(boxes) < 0.3
    assert all(0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 for x0, y0, x1, y1 in boxes)


def test_nearest_noun_goes_by_direction() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 0.1]])
    noun, cosine = nearest_noun(torch.tensor([0.2, 3.0]), ("cat", "boat"), vectors)
    assert noun == "boat"
    assert cosine == pytest.approx(3 / (0.04 + 9) ** 0.5)


def test_width_is_checked() -> None:
    require_width(predictor(), WIDTH, "Predict Layout")
    with pytest.raises(UserError, match="16 wide.*are 768 wide"):
        require_width(predictor(), 768, "Predict Layout")


def test_file_keeps_the_bits(tmp_path: Path) -> None:
    path = tmp_path / "layout" / "mine.safetensors"
    write_predictor(predictor(metadata={"detector": "judge", "held_out_iou": "0.4"}), path)
    again = read_predictor(path)
    assert again.name == "mine" and again.vocabulary == ("cat", "boat") and again.text_encoder == "abc"
    assert again.features == "refined" and again.template == "a {} and a {}" and again.width == WIDTH
    assert again.metadata["detector"] == "judge" and again.metadata["held_out_iou"] == "0.4"
    seen = features(2)
    for ours, theirs in zip(again.network(*seen.split(1)), network()(*seen.split(1)), strict=True):
        assert torch.equal(ours, theirs)
    write_predictor(again, path)
    assert read_predictor(path).metadata["held_out_iou"] == "0.4"


def test_another_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="already exists"):
        write_predictor(predictor(), path)
    with pytest.raises(UserError, match="not a layout predictor"):
        read_predictor(path)


def test_side_by_side_is_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="learned nothing"):
        write_predictor(SideBySide(), tmp_path / "p.safetensors")


def damaged(tmp_path: Path, **changes) -> Path:
    path = tmp_path / "p.safetensors"
    write_predictor(predictor(), path)
    saved = read_predictor(path)
    weights = {**saved.network.state_dict(), **changes.pop("weights", {})}
    save_file(weights, path, {**saved.metadata, **changes})
    return path


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"vocabulary": "cat"}, "damaged"),
        ({"vocabulary": json.dumps([])}, "make no sense"),
        ({"vocabulary": "5"}, "make no sense"),
        ({"vocabulary": json.dumps("cat")}, "make no sense"),
        ({"vocabulary": json.dumps(["cat", 5])}, "make no sense"),
        ({"vocabulary": json.dumps(["cat", "cat"])}, "make no sense"),
        ({"template": "a photo of a {}"}, "make no sense"),
        ({"features": "other"}, "make no sense"),
        ({"weights": {"box.bias": torch.full((4,), torch.nan)}}, "holds NaN or infinity in box.bias"),
        ({"weights": {"box.bias": torch.zeros(3)}}, "damaged"),
        ({"compinv_format": "something"}, "not a layout predictor"),
    ],
)
def test_bad_files_get_one_sentence(tmp_path: Path, changes: dict, part: str) -> None:
    with pytest.raises(UserError, match=part) as caught:
        read_predictor(damaged(tmp_path, **changes))
    assert str(caught.value).endswith(".") and ". " not in str(caught.value)


def test_nothing_is_allocated_for_a_shape_that_the_file_only_claims(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="damaged"):
        read_predictor(damaged(tmp_path, weights={"own.weight": torch.zeros(10**6, 0)}))


def test_missing_and_broken_files_get_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_predictor(tmp_path / "none.safetensors")
    (tmp_path / "noise.safetensors").write_bytes(b"\x80\x04noise" * 20)
    with pytest.raises(UserError, match="not a layout predictor"):
        read_predictor(tmp_path / "noise.safetensors")
