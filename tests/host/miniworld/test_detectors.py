"""The miniature world's detectors: they learn, are written as their libraries write them, and are measured rightly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from compinv_core.detectors.detections import Detection
from miniworld.networks.detectors import NOUN_NAMES
from miniworld.training import detectors as train_detectors
from miniworld.training.fitting import Schedule
from miniworld.world.dataset import scene_rng
from miniworld.world.scenes import SIDE, render_scene


@pytest.fixture(scope="module")
def data() -> dict[str, Tensor]:
    rng = scene_rng(9, 0)
    pictures, rows = zip(*(train_detectors.truth(render_scene(rng)) for _ in range(6)), strict=True)
    return {
        "pictures": torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(),
        "rows": torch.from_numpy(np.stack(rows)),
    }


def test_truth_names_the_objects_and_their_boxes() -> None:
    scene = render_scene(scene_rng(9, 1), ["cat"])
    image, rows = train_detectors.truth(scene)
    assert image.shape == (SIDE, SIDE, 3)
    assert NOUN_NAMES[int(rows[0, 0])] == "cat" and rows.shape == (3, 5) and (rows[1:] == -1).all()
    assert rows[0, 1:] == pytest.approx(np.clip(scene.objects[0].box, 0, 1))


@dataclass(frozen=True)
class Oracle:
    """Says what it was told: of every picture the true first object, and a ball that is not there."""

    rows: Tensor
    name: str = "oracle"
    labels: tuple[str, ...] = NOUN_NAMES
    threshold: float = 0.5

    def detect(self, images: Tensor) -> list[tuple[Detection, ...]]:
        invented = Detection("ball", 0.9, (0.0, 0.0, 0.01, 0.01))
        return [(Detection(NOUN_NAMES[int(row[0])], 1.0, tuple(row[1:].tolist())), invented) for row in self.rows[:, 0]]


def test_measures_of_a_known_detector(data: dict[str, Tensor]) -> None:
    objects = int((data["rows"][..., 0] >= 0).sum())
    scores = train_detectors.measure(Oracle(data["rows"]), data)
    assert scores == {"recall": 6 / objects, "precision": 0.5, "mean IoU": pytest.approx(1.0)}


@pytest.mark.parametrize("name", ["yolo", "detr"])
def test_detectors_learn_and_are_loaded_as_anyones(name: str, data, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(train_detectors, "HELD_OUT", 0)
    monkeypatch.setattr(train_detectors, "BATCH", 4)
    recipe = replace(train_detectors.RECIPES[name], schedule=Schedule(steps=30, decay_from=25, warmup=2))
    losses: list[float] = []

    def watched(*arguments) -> Tensor:
        value = recipe.loss(*arguments)
        losses.append(value.item())
        return value

    weights = train_detectors.train_detector(replace(recipe, loss=watched), data, tmp_path / "state.pt")
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5]), losses

    target = tmp_path / recipe.target.name
    recipe.save(weights, target)
    network = recipe.load(target).network.state_dict()
    stored = {key: tensor for key, tensor in weights.items() if not key.endswith("num_batches_tracked")}
    assert stored.keys() <= network.keys()
    for key, tensor in stored.items():
        assert torch.allclose(network[key], tensor, atol=1e-6, rtol=1e-3), key


def test_training_stops_when_its_time_is_up(data, tmp_path: Path) -> None:
    with pytest.raises(train_detectors.TimeIsUp):
        train_detectors.train_detector(train_detectors.RECIPES["detr"], data, tmp_path / "state.pt", deadline=0.0)


@pytest.mark.parametrize("name", ["yolo", "detr"])
def test_the_detectors_that_come_along_find_what_is_drawn(name: str) -> None:
    rng = scene_rng(9, 2)
    pictures, rows = zip(*(train_detectors.truth(render_scene(rng)) for _ in range(40)), strict=True)
    unseen = {
        "pictures": torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(),
        "rows": torch.from_numpy(np.stack(rows)),
    }
    recipe = train_detectors.RECIPES[name]
    scores = train_detectors.measure(recipe.load(recipe.target), unseen)
    assert scores["recall"] > 0.95 and scores["precision"] > 0.95 and scores["mean IoU"] > 0.85, scores
