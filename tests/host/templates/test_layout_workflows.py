"""The templates of the predicted layout and of its training through the real server, on a small model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compinv_core.layouts.predictor import LayoutPredictor, PairNetwork
from compinv_core.layouts.predictor_file import write_predictor
from miniworld.networks.checkpoint import assemble
from support.locations import REPOSITORY
from support.models import detector_files
from support.server import ComfyServer, PromptResult
from support.templates import graph

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
    assert result.ok and not result.warnings, result
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
    assert result.ok and not result.warnings, result
    assert result.outputs[graph.find(prompt, "LossGraphNode")]["images"]
    (told,) = result.outputs[graph.find(prompt, "CompInvTrainLayoutPredictor")]["text"]
    assert "predictor:" in told and "constant layout:" in told and "class mean:" in told
    assert (server.base / "models" / "compinv" / "layout" / "template.safetensors").is_file()
    reports = list((server.base / "output" / "compinv" / "reports").glob("layout-predictor-*.json"))
    assert any(json.loads(path.read_text())["settings"]["data set"] == "template" for path in reports)

    offered = server.get("/object_info/CompInvLoadLayoutPredictor")["CompInvLoadLayoutPredictor"]["input"]["required"]
    assert offered["filename"][1]["options"][0] == "side-by-side" and "template" in offered["filename"][1]["options"]
    result = server.run(using())
    assert result.ok and not result.warnings, result
    assert result.outputs["predict"]["text"] == ["a cat: as cat\na boat: as boat"]


def test_a_collection_that_is_whole_is_not_trained_on_again(server: ComfyServer, detector: str) -> None:
    prompt = training(server, detector, CompInvCollectLayouts={"dataset": "once"})
    assert server.run(prompt).ok
    with server.events() as events:
        assert server.run(prompt).ok
    (cached,) = [event["data"]["nodes"] for event in events if event["type"] == "execution_cached"]
    for kind in ("CompInvCollectLayouts", "CompInvTrainLayoutPredictor"):
        assert graph.find(prompt, kind) in cached


def using(predictor: str = "template", phrases: str = "a cat\na boat") -> graph.Prompt:
    """Boxes from a predictor."""
    return {
        "checkpoint": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny.safetensors"}},
        "load": {"class_type": "CompInvLoadLayoutPredictor", "inputs": {"filename": predictor}},
        "predict": {
            "class_type": "CompInvPredictLayout",
            "inputs": {
                "predictor": ["load", 0], "clip": ["checkpoint", 1], "phrases": phrases, "width": 64, "height": 64,
            },
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def made(server: ComfyServer, detector: str) -> list[Path]:
    """Folders with a data set and its predictor, a predictor of another width, and another text encoder beside."""
    result = server.run(training(server, detector))
    assert result.ok and not result.warnings, result
    predictors = server.base / "models" / "compinv" / "layout"
    with torch.random.fork_rng(devices=[]):
        network = PairNetwork(512).eval()
    narrow = LayoutPredictor("narrow", network, NOUNS, "refined", "a photo of a {} and a {}", "other")
    write_predictor(narrow, predictors / "narrow.safetensors")
    assemble(server.base / "models" / "checkpoints" / "miniworld.safetensors")
    return [predictors, server.base / "output" / "compinv" / "layouts" / "template"]


def contents(folders: list[Path]) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


OTHER_ENCODER = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "miniworld.safetensors"}}
BAD = {
    "no noun that the detector knows": ({"CompInvLoadAnchors": {"extra_words": "sofa, lamp"}}, "none of the nouns"),
    "a detector that is sure of nothing": (
        {"CompInvLoadDetector": {"threshold": 1.0}, "CompInvCollectLayouts": {"dataset": "unsure"}},
        "no picture in which both nouns",
    ),
    "a name that leaves the folder": ({"CompInvCollectLayouts": {"dataset": "../up"}}, 'dataset is "../up"'),
    "a data set of other settings": ({"CompInvCollectLayouts": {"steps": 2}}, "made with another steps; restore"),
    "another text encoder": (
        {"CompInvTrainLayoutPredictor": {"clip": ["other", 1]}},
        "painted with another text encoder; connect `clip`",
    ),
    "the name of a choice": (
        {"CompInvSaveLayoutPredictor": {"filename": "side-by-side"}},
        'filename is "side-by-side"',
    ),
}
BAD_PREDICTIONS = {
    "a predictor of another width": (using("narrow"), '"narrow" expects token features 512 wide'),
    "no phrase": (using(phrases="\n"), "no phrase, .* in `phrases`"),
    "one phrase": (using(phrases="a cat"), 'only the phrase "a cat", .* in `phrases`'),
    "the same phrase twice": (using(phrases="a cat\nA  cat"), "given twice; .*`phrases`"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_a_sentence_and_nothing_is_lost(
    server: ComfyServer, detector: str, made: list[Path], name: str
) -> None:
    changes, words = BAD[name]
    before = contents(made)
    result = server.run(graph.changed({**training(server, detector), "other": OTHER_ENCODER}, **changes))
    check_sentence(result, words)
    assert contents(made) == before
    assert not (server.base / "output" / "compinv" / "up").exists()


@pytest.mark.parametrize("name", BAD_PREDICTIONS)
def test_bad_phrases_and_predictors_get_a_sentence(server: ComfyServer, made: list[Path], name: str) -> None:
    prompt, words = BAD_PREDICTIONS[name]
    before = contents(made)
    check_sentence(server.run(prompt), words)
    assert contents(made) == before


def check_sentence(result: PromptResult, words: str) -> None:
    assert result.error_type.endswith("UserError"), result
    assert re.search(words, result.error), result.error
    assert len(re.findall(r"[.!?](?=\s|$)", result.error)) == 1 and result.error.endswith("."), result.error
    # What to do about it stands behind a semicolon.
    assert re.search(r"; \w+", result.error), result.error
