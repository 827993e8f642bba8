"""YOLO files: the same boxes as ultralytics' own prediction, and nothing in a file is ever run."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from compinv_core.basics.errors import UserError
from compinv_core.detectors.yolo import load_yolo
from compinv_core.detectors.yolo_checkpoint import read_yolo_checkpoint
from support.models import detector_files


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ultralytics")


@pytest.fixture(scope="module")
def network(settings: Path) -> torch.nn.Module:
    return detector_files.yolo_network("yolo11n.yaml", settings)


@pytest.fixture(scope="module")
def file(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detector_files.save_yolo(tmp_path_factory.mktemp("yolo") / "file.pt", network, **detector_files.YOLO_EXTRAS)


CASES = {
    "yolo11n.yaml": "DetectionModel",
    "yolo26n.yaml": "DetectionModel",
    "yolov8n-seg.yaml": "SegmentationModel",
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("yaml", CASES)
def test_boxes_are_those_of_ultralytics(yaml: str, settings: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    other = detector_files.yolo_network(yaml, settings, CASES[yaml])
    path = detector_files.save_yolo(tmp_path / yaml.replace("yaml", "pt"), other)
    picture = np.random.default_rng(1).integers(0, 256, (100, 128, 3), dtype=np.uint8)
    from ultralytics import YOLO

    threshold = 0.5
    result = YOLO(path).predict(picture[..., ::-1], imgsz=128, conf=threshold, iou=0.7, verbose=False)[0].boxes
    expected = list(zip(result.conf.tolist(), result.cls.tolist(), result.xyxyn.tolist(), strict=True))
    assert len(expected) > 3

    detector = load_yolo(path, "mine", threshold, settings)
    (found,) = detector.detect(torch.from_numpy(picture)[None].float() / 255)

    assert detector.labels == ("cat", "dog", "boat") and detector.image_size == 128
    # Theirs are folded with the normalisations, so that scores that nearly tie may change places.
    assert len(found) == len(expected)
    rows = torch.tensor([[thing.score, detector.class_names.index(thing.label), *thing.box] for thing in found])
    distances = (rows[:, None] - torch.tensor([[score, index, *box] for score, index, box in expected])).abs().amax(2)
    assert distances.amin(0).max() < 1e-3 and distances.amin(1).max() < 1e-3
    assert [thing.score for thing in found] == sorted((thing.score for thing in found), reverse=True)


def test_pictures_of_a_batch_are_looked_at_one_by_one(file: Path, settings: Path) -> None:
    detector = load_yolo(file, "mine", 0.5, settings)
    images = torch.rand(3, 90, 200, 3, generator=torch.Generator().manual_seed(0))
    together = detector.detect(images)
    for number, alone in enumerate(images.split(1)):
        (found,) = detector.detect(alone)
        assert [thing.label for thing in found] == [thing.label for thing in together[number]]
        assert [thing.score for thing in found] == pytest.approx([t.score for t in together[number]], abs=1e-5)


def test_nothing_is_found_above_the_highest_score(file: Path, settings: Path) -> None:
    images = torch.rand(2, 64, 64, 3)
    highest = max(things[0].score for things in load_yolo(file, "mine", 0.1, settings).detect(images))
    assert highest < 0.9999
    assert load_yolo(file, "mine", highest + 1e-4, settings).detect(images) == [(), ()]


def test_weights_are_those_of_the_file(file: Path, network: torch.nn.Module, settings: Path) -> None:
    loaded = load_yolo(file, "mine", 0.5, settings).network.state_dict()
    assert loaded.keys() == network.state_dict().keys()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in network.state_dict().items())


def test_the_moving_average_comes_before_the_last_step(network: torch.nn.Module, tmp_path: Path) -> None:
    path = detector_files.save_yolo(tmp_path / "ema.pt", torch.nn.Linear(1, 1), ema=network)
    assert read_yolo_checkpoint(path).names == ("cat", "dog", "boat")


class Ran:
    """Pickles to a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def make_marker(path: str) -> None:
    Path(path).write_text("run")


def test_a_file_that_calls_something_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for call in (Ran(os.system, f"touch {marker}"), Ran(eval, f"open({str(marker)!r}, 'w')")):
        path = detector_files.save_yolo(tmp_path / "evil.pt", call)
        with pytest.raises(UserError, match=r"evil\.pt contains (posix\.system|nt\.system|builtins\.eval), which"):
            read_yolo_checkpoint(path)
        assert not marker.exists()


def test_a_file_cannot_call_the_layers_that_it_may_name(tmp_path: Path, settings: Path, network) -> None:
    # ultralytics' own constructors evaluate the activation: an allow-list of its classes would run this file.
    from ultralytics.nn.tasks import DetectionModel

    marker = tmp_path / "marker"
    evil = {**network.yaml, "activation": f"open({str(marker)!r}, 'w')"}
    path = detector_files.save_yolo(tmp_path / "evil.pt", Ran(DetectionModel, evil))
    with pytest.raises(UserError, match="not a YOLO file"):
        load_yolo(path, "evil", 0.5, settings)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation": "open('marker', 'w')"}, "activation"),
        ({"activation": "nn.SiLU(open('marker', 'w'))"}, "activation"),
        ({"backbone": [[-1, 1, "torch_safe_load", ["file.pt"]]]}, '"torch_safe_load", which is no layer'),
        ({"backbone": [[-1, 1, "TorchVision", [512, "resnet18", "DEFAULT"]]]}, '"TorchVision", which is no layer'),
        ({"backbone": [[-1, 1, "nn.functional.relu", []]]}, "which is no layer"),
        ({"backbone": [[-1, 1, "torchvision.ops.nms", []]]}, "which is no layer"),
        ({"head": [["boat"]]}, "which is no layer"),
        ({"head": [[-1, 1, "Conv", ["wrong"]]]}, "cannot be built"),
    ],
)
def test_a_network_is_only_built_from_layers(
    network: torch.nn.Module, settings: Path, tmp_path: Path, monkeypatch, changes: dict, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    yaml = network.yaml
    network.yaml = {**yaml, **changes}
    path = detector_files.save_yolo(tmp_path / "evil.pt", network)
    network.yaml = yaml
    with pytest.raises(UserError, match=words):
        load_yolo(path, "evil", 0.5, settings)
    assert not (tmp_path / "marker").exists()


def test_an_activation_of_its_own_stays_with_its_network(network: torch.nn.Module, settings: Path, tmp_path: Path):
    from ultralytics.nn.modules.conv import Conv

    before, yaml = Conv.default_act, network.yaml
    network.yaml = {**yaml, "activation": "nn.LeakyReLU(0.1)"}
    path = detector_files.save_yolo(tmp_path / "leaky.pt", network)
    network.yaml = yaml
    loaded = load_yolo(path, "leaky", 0.5, settings).network
    assert Conv.default_act is before
    assert any(isinstance(layer, torch.nn.LeakyReLU) for layer in loaded.modules())


def test_another_task_gets_a_sentence(settings: Path, tmp_path: Path) -> None:
    pose = detector_files.yolo_network("yolo11n-pose.yaml", settings, "PoseModel", names=("person",))
    path = detector_files.save_yolo(tmp_path / "pose.pt", pose)
    with pytest.raises(UserError, match='of the kind "PoseModel"; choose one that detects objects'):
        read_yolo_checkpoint(path)


def test_files_of_another_kind_get_a_sentence(file: Path, tmp_path: Path) -> None:
    def written(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    torch.save({"weight": torch.zeros(2)}, tmp_path / "tensors.pt")
    save_file({"weight": torch.zeros(2)}, tmp_path / "safe.pt")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("data.txt", "nothing")
    for path in (
        written("text.pt", b"not a detector"),
        written("empty.pt", b""),
        written("pickle.pt", pickle.dumps({"model": 1})),
        written("cut.pt", file.read_bytes()[:100_000]),
        tmp_path / "tensors.pt",
        tmp_path / "safe.pt",
        tmp_path / "zip.pt",
    ):
        with pytest.raises(UserError, match=f"{path.name} is not a YOLO file"):
            read_yolo_checkpoint(path)
    with pytest.raises(UserError, match=r'"none\.pt" does not exist'):
        read_yolo_checkpoint(tmp_path / "none.pt")


def test_a_file_of_the_old_repository_gets_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("old/data.pkl", b"\x80\x02cmodels.yolo\nModel\nq\x00.")
        archive.writestr("old/version", "3\n")
    with pytest.raises(UserError, match="old YOLOv5 repository"):
        read_yolo_checkpoint(path)


def test_other_libraries_keep_their_functions(settings: Path) -> None:
    program = """
import sys, torch
from pathlib import Path
from PIL import Image
sys.path.insert(0, sys.argv[1])
from compinv_core.detectors.yolo import quiet_ultralytics
before = Image.open, torch.save
with quiet_ultralytics(Path(sys.argv[2])):
    assert before == (Image.open, torch.save) and "ultralytics" in sys.modules
"""
    root = Path(__file__).resolve().parents[3]
    subprocess.run([sys.executable, "-c", program, str(root), str(settings)], check=True)
