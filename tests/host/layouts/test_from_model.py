"""Layouts from the model's own attention."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from compinv_core.basics.errors import UserError
from compinv_core.boxes.geometry import largest_pairwise_iou
from compinv_core.layouts.from_maps import LEAST_AREA
from support import host
from support.sampling import encode, sample

TEXT, PHRASES = "embedding:looked cat and a ball", ("embedding:looked cat", "a ball")


@pytest.fixture(scope="module")
def core() -> Any:
    base = host.start()
    import compinv_core.host.layouts.from_model as module
    from compinv_core.host.text.encoder import load_anchors

    module.small = module.LookConfig(width=64, height=96, steps=20, cfg=4.0)
    near_dog = load_anchors(host.load("tiny")[1], ["dog"]).vectors + 1e-4
    save_file({"looked": near_dog}, str(base / "models" / "embeddings" / "looked.safetensors"))
    return module


@pytest.mark.parametrize(
    ("text", "phrases", "expected"),
    [
        (TEXT, PHRASES, ["cat and a ball", "cat", "a ball"]),
        ("a (embedding:looked:1.2) cat", ("looked cat",), ["a cat", "cat"]),
        ("an embedding:looked by a ball", ("embedding:looked", "a ball"), ["an dog by a ball", "dog", "a ball"]),
        ("a looked-at cat", ("looked-at cat",), ["a looked-at cat", "looked-at cat"]),
    ],
)
def test_learned_words_become_nouns(core: Any, text: str, phrases: tuple, expected: list) -> None:
    assert core.with_nouns(host.load("tiny")[1], text, phrases) == expected


@pytest.mark.parametrize("kind", ["tiny", "sdxl", "sd2"])
def test_boxes_are_disjoint_large_enough_and_the_same_for_a_seed(core: Any, kind: str) -> None:
    model, clip, _ = host.load(kind)
    one, again = (
        core.layout_from_model(model, clip, "a cat and a ball", ("a cat", "a ball"), core.small) for _ in "ab"
    )
    assert one == again == pickle.loads(pickle.dumps(one))
    assert (one.phrases, one.width, one.height) == (("a cat", "a ball"), 64, 96)
    assert largest_pairwise_iou(one.boxes) == 0
    assert all((x1 - x0) * (y1 - y0) >= LEAST_AREA for x0, y0, x1, y1 in one.boxes)


def test_it_is_the_layout_of_the_nouns_and_leaves_the_model_alone(core: Any) -> None:
    model, clip, _ = host.load("tiny")
    before = sample(model, encode())
    learned = core.layout_from_model(model, clip, TEXT, PHRASES, core.small)
    plain = core.layout_from_model(model, clip, "cat and a ball", ("cat", "a ball"), core.small)
    assert learned.boxes == plain.boxes
    assert torch.equal(sample(model, encode()), before)


def test_a_tenth_of_the_steps_is_looked_at(core: Any) -> None:
    assert [core.LookConfig(steps=steps).looked for steps in (1, 12, 20, 50)] == [1, 1, 2, 5]


def test_phrases_are_needed_and_have_to_be_there(core: Any) -> None:
    model, clip, _ = host.load("tiny")
    with pytest.raises(UserError, match="there is no phrase"):
        core.layout_from_model(model, clip, TEXT, (), core.small)
    with pytest.raises(UserError, match="is not in the prompt"):
        core.layout_from_model(model, clip, TEXT, ("a boat",), core.small)
