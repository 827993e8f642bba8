"""The templates of the predicted layout and of its training through the real server, on a small model."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from support import detector_files, graph
from support.locations import REPOSITORY
from support.server import ComfyServer, PromptResult

SIDE = 128
NOUNS = ("cat", "dog", "boat")
PREDICTED = [
    {"x": 3, "y": 26, "width": 58, "height": 76, "metadata": {"type": "obj", "desc": "a cat"}},
    {"x": 67, "y": 26, "width": 58, "height": 76, "metadata": {"type": "obj", "desc": "a ball"}},
]
"""The row of equal boxes, as the canvas keeps it: 2.5 % of the side is free around each."""


def template(server: ComfyServer, name: str) -> graph.Prompt:
    workflow = json.loads((REPOSITORY / "workflows" / f"{name}.json").read_text())
    return graph.to_prompt(workflow, server.get("/object_info"))


@pytest.fixture(scope="module")
def predicting(server: ComfyServer, sd1_checkpoint: str) -> graph.Prompt:
    """The third template with ordinary words, small."""
    prompt = graph.changed(
        template(server, "03-compose-with-predicted-layout"),
        CheckpointLoaderSimple={"ckpt_name": sd1_checkpoint},
        CompInvPredictLayout={"width": SIDE, "height": SIDE},
        CreateBoundingBoxes={"width": SIDE, "height": SIDE},
        EmptyLatentImage={"batch_size": 1},
        KSampler={"steps": 3},
    )
    for each in prompt.values():
        if each["class_type"] == "PrimitiveStringMultiline":
            several = "\n" in each["inputs"]["value"]
            each["inputs"]["value"] = "a cat\na ball" if several else "a cat and a ball"
    return prompt


def picture(server: ComfyServer, prompt: graph.Prompt) -> tuple[np.ndarray, PromptResult]:
    result = server.run(prompt)
    assert result.ok, result
    return np.stack(server.images(result, graph.find(prompt, "SaveImage"))).astype(int), result


def on_canvas(prompt: graph.Prompt, boxes: list, incoming: list) -> graph.Prompt:
    """The prompt after the editor took over the incoming boxes and the person moved them."""
    state = {"editor_state": {"__value__": boxes}, "last_incoming": {"__value__": incoming}}
    return graph.changed(prompt, CreateBoundingBoxes=state)


def test_predicted_boxes_start_the_canvas_and_moved_ones_win(server: ComfyServer, predicting: graph.Prompt) -> None:
    predicted, result = picture(server, predicting)
    assert result.outputs[graph.find(predicting, "CreateBoundingBoxes")]["input_bboxes"] == PREDICTED
    previews = [result.outputs[key] for key, each in predicting.items() if each["class_type"] == "PreviewImage"]
    assert [len(preview["images"]) for preview in previews] == [1, 1]

    # The editor keeps what came in; nothing changes until a box is moved.
    untouched, _ = picture(server, on_canvas(predicting, PREDICTED, PREDICTED))
    assert np.array_equal(untouched, predicted)

    # Boxes change places in the list, which their descriptions make up for, and one of them moves.
    swapped, _ = picture(server, on_canvas(predicting, PREDICTED[::-1], PREDICTED))
    assert np.array_equal(swapped, predicted)
    moved = [{**PREDICTED[0], "y": 48}, PREDICTED[1]]
    assert not np.array_equal(picture(server, on_canvas(predicting, moved, PREDICTED))[0], predicted)
    # A new prediction puts the old edits aside.
    assert np.array_equal(picture(server, on_canvas(predicting, moved, PREDICTED[:1]))[0], predicted)


@pytest.fixture(scope="module")
def detector(server: ComfyServer) -> str:
    """A YOLO among the server's models that finds many things anywhere."""
    network = detector_files.yolo_network("yolo11n.yaml", server.base / "settings", names=NOUNS)
    detector_files.save_yolo(server.base / "models" / "ultralytics" / "bbox" / "pairs.pt", network)
    return "ultralytics/bbox/pairs.pt"


def training(server: ComfyServer, detector: str, **changes: dict[str, Any]) -> graph.Prompt:
    """The fourth template, small."""
    small = {
        "dataset": "template", "pairs": 3, "images_per_pair": 2, "steps": 1, "cfg": 1.0, "sampler_name": "euler",
        "width": SIDE, "height": SIDE,
    }  # fmt: skip
    return graph.changed(
        template(server, "04-train-layout-predictor"),
        **{
            "CheckpointLoaderSimple": {"ckpt_name": "tiny.safetensors"},
            "CompInvLoadAnchors": {"vocabulary": "none", "extra_words": ", ".join(NOUNS)},
            "CompInvLoadDetector": {"backend": "yolo", "model": detector, "threshold": 0.05},
            "CompInvCollectLayouts": small | changes.pop("CompInvCollectLayouts", {}),
            "CompInvTrainLayoutPredictor": {"epochs": 2},
            **changes,
        },
    )


def test_training_template_writes_a_predictor_that_predicts(server: ComfyServer, detector: str) -> None:
    prompt = training(server, detector)
    result = server.run(prompt)
    assert result.ok, result
    assert result.outputs[graph.find(prompt, "LossGraphNode")]["images"]
    (told,) = result.outputs[graph.find(prompt, "CompInvTrainLayoutPredictor")]["text"]
    assert "predictor:" in told and "constant layout:" in told and "class mean:" in told
    assert (server.base / "models" / "compinv" / "layout" / "template.safetensors").is_file()
    reports = list((server.base / "output" / "compinv" / "reports").glob("layout-predictor-*.json"))
    assert any(json.loads(path.read_text())["settings"]["data set"] == "template" for path in reports)

    offered = server.get("/object_info/CompInvLoadLayoutPredictor")["CompInvLoadLayoutPredictor"]["input"]["required"]
    assert offered["filename"][1]["options"][0] == "side-by-side" and "template" in offered["filename"][1]["options"]
    using = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny.safetensors"}},
        "2": {"class_type": "CompInvLoadLayoutPredictor", "inputs": {"filename": "template"}},
        "3": {
            "class_type": "CompInvPredictLayout",
            "inputs": {"predictor": ["2", 0], "clip": ["1", 1], "phrases": "a cat\na boat", "width": 64, "height": 64},
        },
    }
    result = server.run(using)
    assert result.ok, result
    assert result.outputs["3"]["text"] == ["a cat: as cat\na boat: as boat"]


BAD = {
    "no noun that the detector knows": ({"CompInvLoadAnchors": {"extra_words": "sofa, lamp"}}, "none of the nouns"),
    "a detector that is sure of nothing": (
        {"CompInvLoadDetector": {"threshold": 1.0}, "CompInvCollectLayouts": {"dataset": "unsure"}},
        "no picture in which both nouns",
    ),
    "a name that leaves the folder": ({"CompInvCollectLayouts": {"dataset": "../up"}}, "dataset is '../up'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_a_sentence(server: ComfyServer, detector: str, name: str) -> None:
    changes, words = BAD[name]
    prompt = training(server, detector, CompInvCollectLayouts=changes.get("CompInvCollectLayouts", {}))
    prompt = graph.changed(prompt, **changes)
    result = server.run(prompt)
    assert words in result.error and result.error_type.endswith("UserError")
    assert not (server.base / "output" / "compinv" / "up").exists()
