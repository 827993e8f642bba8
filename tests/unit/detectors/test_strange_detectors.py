"""Detector files of strangers: what their libraries vary is read, what no network has is refused in a sentence."""

from __future__ import annotations

import copy
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compinv_core.basics.errors import UserError
from compinv_core.basics.tensor_file import plain_tensor
from compinv_core.detectors.bounds import MemoryBudget, plain_data
from compinv_core.detectors.detr import load_detr
from compinv_core.detectors.yolo import load_yolo
from support.models import detector_files

PICTURE = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ultralytics")


@pytest.fixture(scope="module")
def network(settings: Path) -> nn.Module:
    return detector_files.yolo_network("yolo11n.yaml", settings)


def changed(network: nn.Module, path: Path, change: Callable[[Any], Any], **entries: Any) -> Path:
    network = copy.deepcopy(network)
    change(network)
    return detector_files.save_yolo(path / "changed.pt", network, **entries)


def names(value: Any) -> Callable[[Any], None]:
    return lambda network: setattr(network, "names", value)


def layout(key: str, value: Any) -> Callable[[Any], None]:
    return lambda network: setattr(network, "yaml", {**network.yaml, key: value})


def loop(network: Any) -> None:
    inner: dict[str, Any] = {}
    inner["self"] = inner
    network.yaml = {**network.yaml, "loop": inner}


def buffer(make: Callable[[], torch.Tensor]) -> Callable[[Any], None]:
    return lambda network: network.register_buffer("odd", make())


def test_class_names_with_text_keys_in_any_order_are_taken(network: nn.Module, settings: Path, tmp_path: Path) -> None:
    path = changed(network, tmp_path, names({"2": "cup", "0": "cat", "1": "dog"}))
    assert load_yolo(path, "", 0.5, settings).labels == ("cat", "dog", "cup")


def test_a_fused_file_finds_what_it_found_before(network: nn.Module, settings: Path, tmp_path: Path) -> None:
    (before,) = load_yolo(changed(network, tmp_path, lambda _: None), "", 0.5, settings).detect(PICTURE)
    path = changed(network, tmp_path, lambda network: network.fuse(verbose=False))
    (after,) = load_yolo(path, "", 0.5, settings).detect(PICTURE)
    assert len(before) == len(after) > 0
    assert [found.score for found in after] == pytest.approx([found.score for found in before], abs=1e-3)


@pytest.mark.parametrize(
    ("change", "entries", "words"),
    [
        (names({1: "cat", 2: "dog", 3: "cup"}), {}, "class names in changed.pt are numbered 1, 2, 3, where 0 to 2"),
        (names({"a": "cat"}), {}, "class names"),
        (buffer(lambda: torch.ones(1, dtype=torch.float16).expand(1 << 17, 1 << 14)), {}, "odd is no plain tensor"),
        (buffer(lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8)), {}, "odd is no plain tensor"),
        (buffer(lambda: torch.eye(3).to_sparse()), {}, "odd is no plain tensor"),
        (buffer(lambda: torch.ones(2, dtype=torch.complex64)), {}, "odd is no plain tensor"),
        (loop, {}, "contains itself"),
        (layout("backbone", 5), {}, "no layer"),
        (lambda _: None, {"train_args": {"imgsz": [1, "a"]}}, "image size"),
        (lambda _: None, {"train_args": {"imgsz": 10**9}}, "image size"),
        (layout("backbone", [[-1, 1, "Conv", [1 << 24, 99, 2]]]), {}, "cannot be built"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_no_yolo_has_gets_a_sentence(
    network: nn.Module, settings: Path, tmp_path: Path, change: Callable, entries: dict, words: str
) -> None:
    path = changed(network, tmp_path, change, **entries)
    with pytest.raises(UserError, match=words) as error:
        load_yolo(path, "", 0.5, settings)
    assert "; " in str(error.value) and "\n" not in str(error.value)


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(network: nn.Module, settings: Path, tmp_path: Path):
    path = changed(network, tmp_path, lambda _: None)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("changed/data/999", bytes(100 << 20))
    with pytest.raises(UserError, match="not a YOLO file"):
        load_yolo(path, "", 0.5, settings)


def test_a_network_larger_than_its_weights_is_not_built() -> None:
    with pytest.raises(MemoryError), MemoryBudget({"a": torch.zeros(10)}):
        nn.Linear(1 << 14, 1 << 15)
    with MemoryBudget({"a": torch.zeros(10)}):
        nn.Linear(100, 100)


def test_plain_things_stay_as_they_are() -> None:
    assert plain_data({1: ("a", 2.5, {"b": None}), "c": object()}) == {"1": ["a", 2.5, {"b": None}], "c": None}
    assert plain_tensor(torch.zeros(3, 4).T) and plain_tensor(torch.zeros(9)[2:5])


@pytest.mark.parametrize("change", [{"encoder_layers": 100_000}, {"num_queries": 3 * 10**7}, {"d_model": "wide"}])
def test_a_detr_of_another_size_than_its_weights_gets_a_sentence(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = detector_files.save_detr(tmp_path / "small")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UserError, match="small cannot be built"):
        load_detr(folder, "", 0.5)


@pytest.mark.skipif(os.name != "posix", reason="pipes and /dev are of POSIX")
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_settings_that_never_end_are_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    folder = detector_files.save_detr(tmp_path / "small")
    (folder / "config.json").unlink()
    make(folder / "config.json")
    with pytest.raises(UserError, match=r"config\.json"):
        load_detr(folder, "", 0.5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_processor_type": "ViTImageProcessor"}, 'processor of small is "ViTImageProcessor"'),
        ({"image_processor_type": "CLIPImageProcessor"}, "where a DETR has DetrImageProcessor"),
        ({"size": "large"}, "make no sense"),
        ({"size": {"shortest_edge": 10**6, "longest_edge": 10**6}}, "make no sense"),
        ({"pad_size": {"height": 10**6, "width": 10**6}}, "make no sense"),
        ({"image_processor_type": ["DetrImageProcessor"]}, "where a DETR has DetrImageProcessor"),
        ({"image_mean": "none"}, "make no sense"),
        ({"image_std": [1, 1]}, "make no sense"),
        ({"resample": 99}, "make no sense"),
    ],
)
def test_settings_of_another_processor_get_a_sentence(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    folder = detector_files.save_detr(tmp_path / "small")
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(UserError, match=words):
        load_detr(folder, "", 0.5)


def test_processors_of_earlier_versions_are_taken(tmp_path: Path) -> None:
    folder = detector_files.save_detr(tmp_path / "small")
    (expected,) = load_detr(folder, "", 0.1).detect(PICTURE)
    file = folder / "preprocessor_config.json"
    saved = json.loads(file.read_text())
    saved.pop("image_processor_type")
    file.write_text(json.dumps({**saved, "feature_extractor_type": "DetrFeatureExtractor"}))
    assert load_detr(folder, "", 0.1).detect(PICTURE) == [expected]


def test_detectors_survive_pickling_and_are_equal_by_content(
    network: nn.Module, settings: Path, tmp_path: Path
) -> None:
    folder = detector_files.save_detr(tmp_path / "small")
    path = changed(network, tmp_path, lambda _: None)
    for load in (lambda score: load_detr(folder, "", score), lambda score: load_yolo(path, "", score, settings)):
        detector = load(0.1)
        assert detector == load(0.1) != load(0.2)
        for twin in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))):
            assert twin == detector and twin.detect(PICTURE) == detector.detect(PICTURE)
