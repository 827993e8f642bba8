"""Nothing asks the network unless a person chose a download: a server that may only talk to itself does it all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from miniworld.networks.checkpoint import assemble
from support import pictures
from support.locations import REPOSITORY
from support.models.encoder_folders import save_clip
from support.server import ComfyServer
from support.templates import graph

# Python imports a module of this name at its start.
FORBIDDING = """
import os, socket, sys, traceback
os.environ.pop("HF_HUB_OFFLINE", None)
HERE = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "", None)


def forbid(event, arguments):
    if event == "socket.connect":
        address = arguments[1][0] if isinstance(arguments[1], tuple) else None
    elif event == "socket.getaddrinfo":
        address = arguments[0]
    else:
        return
    if address not in HERE and address not in (b"localhost", b"127.0.0.1"):
        with open({log!r}, "a") as log:
            log.write(f"{{event}} {{address}}\\n" + "".join(traceback.format_stack(limit=12)) + "\\n")
        raise OSError("no network here")


sys.addaudithook(forbid)
"""


@pytest.fixture
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ComfyServer, Path]]:
    asked = tmp_path / "asked.log"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FORBIDDING.format(log=str(asked)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    server = ComfyServer(tmp_path / "comfyui")
    assemble(server.base / "models" / "checkpoints" / "v1-5-pruned-emaonly-fp16.safetensors")
    save_clip(server.base / "models" / "compinv" / "encoders" / "clip")
    pictures.fill_input_folder(server.base / "input")
    server.start()
    yield server, asked
    server.stop()


def detection(backend: str) -> graph.Prompt:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "my-cat-1.png"}},
        "2": {
            "class_type": "CompInvLoadDetector",
            "inputs": {"backend": backend, "model": "miniature world", "threshold": 0.1},
        },
        "3": {
            "class_type": "CompInvEvaluateImages",
            "inputs": {
                "images": ["1", 0], "references": ["1", 0], "prompt": "a cat", "concepts": "cat", "clip_model": "clip",
                "detector": ["2", 0],
            },
        },
    }  # fmt: skip


def test_templates_and_detectors_ask_nobody(isolated: tuple[ComfyServer, Path]) -> None:
    server, asked = isolated
    known = server.get("/object_info")
    for name in ("01-train-concept", "03-compose-with-predicted-layout"):
        prompt = graph.to_prompt(json.loads((REPOSITORY / "workflows" / f"{name}.json").read_text()), known)
        kinds = {node["class_type"] for node in prompt.values()}
        changes = {
            "ImageScale": {"width": 64, "height": 64},
            "CompInvTrainConcept": {"steps": 2, "batch_size": 1},
            "EmptyLatentImage": {"width": 64, "height": 64, "batch_size": 1},
            "CompInvPredictLayout": {"width": 64, "height": 64},
            "CompInvLoadLayoutPredictor": {"filename": "miniature world"},
            "KSampler": {"steps": 2},
        }
        result = server.run(
            graph.changed(prompt, **{kind: inputs for kind, inputs in changes.items() if kind in kinds})
        )
        assert result.ok, result
    for backend in ("detr", "yolo"):
        result = server.run(detection(backend))
        assert result.ok, result
    assert not asked.exists(), asked.read_text()[:4000]


def test_a_download_that_a_person_chose_is_what_asks(isolated: tuple[ComfyServer, Path]) -> None:
    server, asked = isolated
    prompt = detection("detr")
    prompt["2"]["inputs"]["model"] = "facebook/detr-resnet-50"
    result = server.run(prompt)
    assert "could not be downloaded" in result.error
    assert "huggingface.co" in asked.read_text()
