"""The detector nodes on the real server and in the real host's folders, the download included."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from support import host
from support.hub import Hub, local_hub
from support.models import detector_files
from support.server import ComfyServer

LABELS = ("cat", "dog", "boat")


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def prompt(backend: str, model: str, threshold: float = 0.4, path: str = "") -> dict[str, dict[str, Any]]:
    """Detect in a photo, show the boxes as text and in the picture, and make a layout of the cat's."""
    return {
        "1": node("LoadImage", image="my-cat-1.png"),
        "2": node("CompInvLoadDetector", backend=backend, model=model, threshold=threshold, path=path),
        "3": node("CompInvDetect", detector=["2", 0], image=["1", 0]),
        "4": node("PreviewAny", source=["3", 0]),
        "5": node("DrawBBoxes", bboxes=["3", 0], image=["1", 0]),
        "6": node("PreviewImage", images=["5", 0]),
    }


@pytest.fixture(scope="module")
def models(server: ComfyServer) -> Path:
    """The server's models folder, with a DETR, a YOLO and things that are neither."""
    folder = server.base / "models"
    detector_files.save_detr(folder / "compinv" / "detectors" / "small")
    network = detector_files.yolo_network("yolo11n.yaml", server.base / "settings", names=LABELS)
    detector_files.save_yolo(folder / "ultralytics" / "bbox" / "shapes.pt", network)
    detector_files.save_yolo(folder / "mine" / "elsewhere.pt", network)
    (folder / "ultralytics" / "text.pt").write_text("not a detector")
    return folder


@pytest.mark.parametrize(
    ("backend", "model"), [("detr", "compinv/detectors/small"), ("yolo", "ultralytics/bbox/shapes.pt")]
)
def test_the_server_finds_what_the_detector_finds(server: ComfyServer, models: Path, backend: str, model: str) -> None:
    from compinv_core.detectors.detr import load_detr
    from compinv_core.detectors.yolo import load_yolo

    graph = prompt(backend, model)
    photo = np.asarray(Image.open(server.base / "input" / "my-cat-1.png").convert("RGB"))
    image = torch.from_numpy(photo.copy())[None].float() / 255
    path = models / model
    detector = load_detr(path, "", 0.4) if backend == "detr" else load_yolo(path, "", 0.4, server.base / "settings")
    (expected,) = detector.detect(image)
    assert expected
    graph["7"] = node(
        "CompInvLayoutFromBoxes", bboxes=["3", 0], phrases=f"a {expected[0].label}", width=128, height=128
    )
    graph["8"] = node("PreviewAny", source=["7", 0])

    result = server.run(graph)

    assert result.ok, result
    (boxes,) = json.loads(result.outputs["4"]["text"][0].replace("'", '"'))
    assert [box["label"] for box in boxes] == [thing.label for thing in expected]
    assert [box["score"] for box in boxes] == pytest.approx([thing.score for thing in expected], abs=1e-4)
    height, width = photo.shape[:2]
    for box, thing in zip(boxes, expected, strict=True):
        x0, y0, x1, y1 = thing.box
        corners = [box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]]
        assert corners == pytest.approx([x0 * width, y0 * height, x1 * width, y1 * height], abs=0.51)
    assert "Layout" in result.outputs["8"]["text"][0]
    assert len(result.outputs["6"]["images"]) == 1


def test_a_path_takes_the_place_of_the_model(server: ComfyServer, models: Path) -> None:
    result = server.run(prompt("yolo", "facebook/detr-resnet-50", path="mine/elsewhere.pt"))
    assert result.ok, result


def test_the_detectors_there_are_offered(server: ComfyServer, models: Path) -> None:
    info = server.get("/object_info/CompInvLoadDetector")["CompInvLoadDetector"]["input"]["required"]
    offered = info["model"][1]["options"]
    # The first is what a fresh node is set to.
    assert offered[0] == "choose a detector" and "default" not in info["model"][1]
    assert {"compinv/detectors/small", "ultralytics/bbox/shapes.pt", "miniature world"} < set(offered)
    assert offered[-2:] == ["facebook/detr-resnet-50", "facebook/detr-resnet-101"]
    assert not [name for name in offered if "elsewhere" in name]


def test_a_path_may_come_over_a_link(server: ComfyServer, models: Path) -> None:
    graph = prompt("yolo", "choose a detector")
    graph["7"] = node("PrimitiveString", value="mine/elsewhere.pt")
    graph["2"]["inputs"]["path"] = ["7", 0]
    result = server.run(graph)
    assert result.ok, result


@pytest.mark.parametrize("backend", ["detr", "yolo"])
def test_the_miniature_worlds_detectors_find_what_is_drawn(server: ComfyServer, backend: str) -> None:
    from miniworld.world.dataset import scene_rng
    from miniworld.world.scenes import render_scene

    nouns = ["boat", "moon"]
    picture = Image.fromarray(render_scene(scene_rng(9, 3), nouns).image)
    picture.save(server.base / "input" / "scene.png")
    graph = prompt(backend, "miniature world", threshold=0.5)
    graph["1"]["inputs"]["image"] = "scene.png"
    result = server.run(graph)
    assert result.ok, result
    (boxes,) = json.loads(result.outputs["4"]["text"][0].replace("'", '"'))
    assert sorted(box["label"] for box in boxes) == nouns


def test_a_fresh_node_downloads_nothing_and_says_what_to_do(server: ComfyServer) -> None:
    result = server.run(prompt("detr", "choose a detector"))
    assert "Load Detector has no detector yet; choose one in `model`" in result.error


@pytest.mark.parametrize(
    ("backend", "path", "words"),
    [
        ("yolo", "ultralytics/none.pt", '"ultralytics/none.pt" does not exist'),
        ("detr", "compinv/detectors/none", '"compinv/detectors/none" does not exist'),
        ("yolo", "ultralytics/text.pt", "text.pt is not a YOLO file"),
        ("detr", "ultralytics", "has no config.json"),
        ("yolo", "compinv/detectors/small", "is a DETR; set `backend` to detr"),
        ("yolo", "facebook/detr-resnet-50", "is a DETR; set `backend` to detr"),
        ("detr", "ultralytics/bbox/shapes.pt", "set `backend` to yolo"),
        ("detr", "compinv/detectors/small/model.safetensors", "choose the folder with its config.json"),
        ("yolo", "ultralytics/bbox", "is a folder, and a YOLO is a file; choose the .pt file in it"),
        ("yolo", "../../secrets.pt", "is not a path below models/"),
        ("yolo", "/etc/passwd", "is not a path below models/"),
        ("detr", "facebook/detr-resnet-50", "HF_HUB_OFFLINE forbids it"),
    ],
)
def test_bad_detectors_get_a_sentence(server: ComfyServer, models: Path, backend: str, path: str, words: str) -> None:
    result = server.run(prompt(backend, "facebook/detr-resnet-50", path=path))
    assert words in result.error, result
    assert result.error_type.endswith("UserError") and result.error_node == "CompInvLoadDetector"
    assert "; " in result.error and "\n" not in result.error


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[type[Hub]]:
    """A hub on this machine, with a small DETR under the name of a real one."""
    detector_files.save_detr(tmp_path / "hub")
    with local_hub("facebook/detr-resnet-50", tmp_path / "hub") as here:
        yield here


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models folder of the host in process."""
    host.start()
    import folder_paths

    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    return tmp_path / "models" / "compinv" / "detectors" / "facebook--detr-resnet-50"


def test_a_hub_model_is_downloaded_once_with_progress(folders: Path, hub: type[Hub]) -> None:
    import comfy.utils

    from compinv_core.host.detectors.loading import load_detector

    shown: list[tuple[int, int]] = []
    before = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(lambda value, total, *rest, **more: shown.append((value, total)))
    try:
        detector = load_detector("detr", "facebook/detr-resnet-50", 0.5)
    finally:
        comfy.utils.set_progress_bar_global_hook(before)

    assert detector.labels == LABELS and detector.name == "DETR facebook/detr-resnet-50"
    size = (folders / "model.safetensors").stat().st_size
    assert (size, size) in shown
    assert len(detector.detect(torch.rand(2, 40, 40, 3))) == 2
    assert len(hub.asked) == 3
    load_detector("detr", "facebook/detr-resnet-50", 0.5)
    assert len(hub.asked) == 3


def test_a_broken_download_leaves_nothing_and_says_so(folders: Path, hub: type[Hub]) -> None:
    from compinv_core.basics.errors import UserError
    from compinv_core.host.detectors.loading import load_detector

    hub.cut = "model.safetensors"
    with pytest.raises(UserError, match=r"model\.safetensors of facebook/detr-resnet-50 could not be downloaded"):
        load_detector("detr", "facebook/detr-resnet-50", 0.5)
    assert sorted(path.name for path in folders.iterdir()) == ["config.json", "preprocessor_config.json"]
    hub.cut = ""
    assert load_detector("detr", "facebook/detr-resnet-50", 0.5).labels == LABELS
    with pytest.raises(UserError, match="could not be downloaded"):
        load_detector("detr", "facebook/detr-resnet-101", 0.5)


def test_the_stop_button_ends_a_download(folders: Path, hub: type[Hub]) -> None:
    import comfy.model_management

    from compinv_core.host.detectors.loading import load_detector

    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        load_detector("detr", "facebook/detr-resnet-50", 0.5)
    assert not list(folders.iterdir())


def test_nothing_is_looked_up_where_nothing_is(folders: Path) -> None:
    from compinv_core.detectors.backends import HUB_MODELS
    from compinv_core.host.detectors.files import NO_DETECTOR, detector_names

    assert detector_names() == [NO_DETECTOR, "miniature world", *HUB_MODELS]


def test_a_changed_file_is_seen(folders: Path) -> None:
    from compinv_core.host.detectors.files import detector_fingerprint

    path = folders.parents[2] / "ultralytics" / "a.pt"
    path.parent.mkdir(parents=True)
    assert detector_fingerprint("ultralytics/a.pt") == []
    path.write_text("one")
    first = detector_fingerprint("ultralytics/a.pt")
    path.write_text("other")
    assert first and detector_fingerprint("ultralytics/a.pt") != first
    assert detector_fingerprint("../a.pt") == []


def test_pictures_with_nan_get_a_sentence(folders: Path, tmp_path: Path) -> None:
    from compinv_core.basics.errors import UserError
    from compinv_core.host.detectors.loading import load_detector

    detector_files.save_detr(folders.parent / "small")
    detector = load_detector("detr", "compinv/detectors/small", 0.5)
    with pytest.raises(UserError, match="picture for the detector holds NaN or infinity; check"):
        detector.detect(torch.full((1, 32, 32, 3), torch.nan))
    with torch.inference_mode():
        assert len(detector.detect(torch.rand(1, 32, 32, 4))) == 1
