"""What flows between nodes can be pickled and deep-copied, and compares equal by content: hosts and packs do that."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compinv_core.basics.report import Report
from compinv_core.boxes.layout import Layout
from compinv_core.layouts.dataset import LayoutDataset, PairLayout
from compinv_core.layouts.predictor import SIDE_BY_SIDE, LayoutPredictor, PairNetwork, SideBySide
from compinv_core.learning.concept import Concept
from compinv_core.recording.record import AttentionFrame, AttentionRecord, AttentionRecording
from compinv_core.semantic.anchors import Anchors
from compinv_core.spatial.attention import BlockMaps

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


def numbers(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def network(seed: int = 0) -> PairNetwork:
    torch.manual_seed(seed)
    return PairNetwork(16).eval()


def record() -> AttentionRecord:
    frame = AttentionFrame(0, 14.6, (BlockMaps(numbers(1, 2, 4, 4)),))
    return AttentionRecord("a cat", ("a cat",), (LEFT,), (frame,), 20, 8, 8, "ddim", 1)


PAYLOADS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "anchors": (lambda: Anchors(("cat", "dog"), numbers(2, 8), ((1,), (2,))), {"vectors": numbers(2, 8) + 1e-6}),
    "concept": (
        lambda: Concept("my-cat", "cat", numbers(1, 8), {"steps": "9"}, photos=(numbers(1, 8, 8, 3),)),
        {"photos": (numbers(1, 8, 8, 3) * 0.5,)},
    ),
    "layout": (lambda: Layout(("a cat", "a dog"), (LEFT, RIGHT), 512, 512), {"boxes": (RIGHT, LEFT)}),
    "predictor": (
        lambda: LayoutPredictor("mine", network(), ("cat", "dog"), "raw", "{} and {}", "0", {"iou": "0.5"}),
        {"network": network(1)},
    ),
    "side by side": (SideBySide, {}),
    "data set": (
        lambda: LayoutDataset(
            Path("layouts"), "0", "DETR", "{} and {}", ("cat", "dog"), (("cat", "dog"),),
            (PairLayout(("cat", "dog"), (LEFT, RIGHT)),), 2,
        ),
        {"pictures": 3},
    ),
    "attention": (record, {"frames": ()}),
    "report": (
        lambda: Report("attention", {"model": "sd"}, {"cfg": 7.5}, ("a cat",), (1,), {}, ({"step": 0},)),
        {"seeds": (2,)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAYLOADS)
def test_payloads_survive_and_compare_by_content(name: str) -> None:
    make, change = PAYLOADS[name]
    payload = make()
    for twin in (make(), copy.deepcopy(payload), copy.copy(payload), pickle.loads(pickle.dumps(payload))):
        assert twin == payload and type(twin) is type(payload)
    for key, value in change.items():
        assert dataclasses.replace(payload, **{key: value}) != payload
    assert payload != SIDE_BY_SIDE


def test_a_recording_takes_its_runs_along() -> None:
    recording = AttentionRecording("a cat", ("a cat",))
    latents = numbers(1, 4, 8, 8)
    recording.keep(latents, record())
    for twin in (copy.deepcopy(recording), pickle.loads(pickle.dumps(recording))):
        assert twin == recording and twin.record_of(latents) == record()
    assert recording != AttentionRecording("a cat", ("a cat",))
