"""The layout predictor that comes with the miniature world, on the text encoder that a person loads."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from compinv_core.boxes.geometry import largest_pairwise_iou
from support import host

THREE = ("moon", "boat", "tree"), ("cat", "house", "ball"), ("bird", "car", "mushroom")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    host.start()
    import comfy.sd

    from miniworld.networks.checkpoint import assemble

    path = assemble(tmp_path_factory.mktemp("miniworld") / "miniworld.safetensors")
    return comfy.sd.load_checkpoint_guess_config(str(path), output_vae=False, output_model=False)[1]


@pytest.fixture(scope="module")
def predictor(clip: Any) -> Any:
    from compinv_core.host.folders import MINIATURE_WORLD
    from compinv_core.host.layouts.predictor_choice import chosen_predictor

    return chosen_predictor(MINIATURE_WORLD)


def boxes(predictor: Any, clip: Any, *phrases: str) -> tuple:
    from compinv_core.host.layouts.prediction import predict_layout

    with torch.inference_mode():
        return predict_layout(predictor, clip, phrases, 128, 128)[0].boxes


def test_it_belongs_to_the_miniature_text_encoder(predictor: Any, clip: Any, caplog: pytest.LogCaptureFixture) -> None:
    from compinv_core.host.fingerprints import is_text_encoder
    from miniworld.world.drawing import NOUNS

    assert is_text_encoder(clip, predictor.text_encoder)
    assert set(predictor.vocabulary) == set(NOUNS)
    with caplog.at_level(logging.WARNING, "compinv"):
        boxes(predictor, clip, "a moon", "a boat")
    assert not caplog.records


@pytest.mark.parametrize("phrases", [("a moon", "a boat"), ("a boat", "a moon")])
def test_the_moon_goes_above_the_boat(predictor: Any, clip: Any, phrases: tuple[str, str]) -> None:
    found = dict(zip(phrases, boxes(predictor, clip, *phrases), strict=True))
    assert centre(found["a moon"]) < 0.4 < 0.6 < centre(found["a boat"])


def centre(box: tuple[float, float, float, float]) -> float:
    return (box[1] + box[3]) / 2


@pytest.mark.parametrize("nouns", THREE)
def test_three_things_get_three_boxes_inside_and_apart(predictor: Any, clip: Any, nouns: tuple[str, ...]) -> None:
    found = boxes(predictor, clip, *nouns)
    assert len(found) == 3 and largest_pairwise_iou(found) < 0.3
    assert all(0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 for x0, y0, x1, y1 in found)
