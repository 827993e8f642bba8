"""A collection on the real server, killed and stopped from the queue: nothing is lost, nothing is made twice."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from support import checkpoints
from support.models import detector_files
from support.server import ComfyServer

NOUNS = ("cat", "dog", "boat", "tree", "car", "house", "bird", "cup")
PAIRS, PER_PAIR = 24, 8


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


PROMPT = {
    "1": node("CheckpointLoaderSimple", ckpt_name="tiny.safetensors"),
    "2": node("CompInvLoadAnchors", clip=["1", 1], vocabulary="none", extra_words=", ".join(NOUNS)),
    "3": node("CompInvLoadDetector", backend="detr", model="compinv/detectors/small", threshold=0.0, path=""),
    "4": node(
        "CompInvCollectLayouts", model=["1", 0], clip=["1", 1], vae=["1", 2], detector=["3", 0], vocabulary=["2", 0],
        dataset="pairs", pairs=PAIRS, images_per_pair=PER_PAIR, steps=1, cfg=1.0, sampler_name="euler",
        scheduler="normal", width=64, height=64, seed=0, batch_size=4, template="a photo of a {} and a {}",
    ),
}  # fmt: skip


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ComfyServer]:
    """A server that this test may kill."""
    server = ComfyServer(tmp_path)
    server.add_checkpoint(checkpoints.build("tiny"), "tiny.safetensors")
    detector_files.save_detr(tmp_path / "models" / "compinv" / "detectors" / "small", dict(enumerate(NOUNS)))
    server.start()
    yield server
    server.stop()


def recorded(folder: Path) -> dict[int, int]:
    """The images that the annotations name, each with the time its file was written."""
    path = folder / "annotations.json"
    if not path.exists():
        return {}
    images = json.loads(path.read_text())["images"]
    return {image["id"]: (folder / image["file_name"]).stat().st_mtime_ns for image in images}


def wait_for(condition: Callable[[], bool], seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_and_stopped_collections_go_on(own_server: ComfyServer) -> None:
    folder = own_server.base / "output" / "compinv" / "layouts" / "pairs"

    own_server.queue(PROMPT)
    wait_for(lambda: len(recorded(folder)) >= 20)
    own_server.kill()
    after_kill = recorded(folder)
    assert 20 <= len(after_kill) < PAIRS * PER_PAIR

    own_server.start()
    stopped = own_server.queue(PROMPT)
    wait_for(lambda: len(recorded(folder)) >= len(after_kill) + 40)
    own_server.interrupt()
    assert own_server.wait(stopped).interrupted
    after_stop = recorded(folder)
    assert after_kill.items() <= after_stop.items() and len(after_stop) < PAIRS * PER_PAIR

    with own_server.events() as events:
        result = own_server.run(PROMPT)
    assert result.ok, result
    whole = recorded(folder)
    # What was there has not been made again, and every number is there once.
    assert after_stop.items() <= whole.items() and sorted(whole) == list(range(1, PAIRS * PER_PAIR + 1))
    # Nothing half written is left, wherever the kill fell.
    assert len(list((folder / "images").iterdir())) == PAIRS * PER_PAIR
    assert sorted(path.name for path in folder.iterdir()) == ["annotations.json", "images", "manifest.json"]
    progress = [event["data"] for event in events if event["type"] == "progress" and event["data"]["node"] == "4"]
    assert progress[-1]["value"] == progress[-1]["max"] == PAIRS * PER_PAIR
    assert sum(event["type"] == "preview" for event in events) >= len(whole) - len(after_stop)
    check_with_coco_tools(folder / "annotations.json")


def check_with_coco_tools(path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        tool = COCO(str(path))
    images = tool.loadImgs(tool.getImgIds())
    pairs = Counter(tuple(sorted(image["nouns"])) for image in images)
    assert len(pairs) == PAIRS and set(pairs.values()) == {PER_PAIR}
    assert set(Counter(tuple(image["nouns"]) for image in images).values()) == {PER_PAIR // 2}
    for annotation in tool.loadAnns(tool.getAnnIds()):
        x, y, width, height = annotation["bbox"]
        assert 0 <= x < x + width <= 64 + 1e-6 and 0 <= y < y + height <= 64 + 1e-6
        assert tool.loadCats(annotation["category_id"])[0]["name"] in tool.loadImgs(annotation["image_id"])[0]["nouns"]
