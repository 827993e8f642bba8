"""Templates 01 and 02 through the real server, on a small model; only checkpoint, size and length are changed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open

from support.locations import REPOSITORY
from support.server import ComfyServer
from support.templates import graph

SIDE = 128


@pytest.fixture(scope="module")
def object_info(server: ComfyServer) -> dict:
    return server.get("/object_info")


def template(name: str, object_info: dict) -> tuple[graph.Prompt, dict]:
    workflow = json.loads((REPOSITORY / "workflows" / f"{name}.json").read_text())
    return graph.to_prompt(workflow, object_info), workflow


@pytest.fixture(scope="module")
def trained(server: ComfyServer, sd1_checkpoint: str, object_info: dict) -> tuple[dict, list[np.ndarray]]:
    """The first template, run: its UI outputs by node type, and its pictures."""
    prompt, _ = template("01-train-concept", object_info)
    prompt = graph.changed(
        prompt,
        CheckpointLoaderSimple={"ckpt_name": sd1_checkpoint},
        ImageScale={"width": SIDE, "height": SIDE},
        CompInvTrainConcept={"steps": 4, "batch_size": 2},
        EmptyLatentImage={"batch_size": 2},
        KSampler={"steps": 3},
    )
    result = server.run(graph.with_photos(prompt, *(f"my-cat-{number}.png" for number in (1, 2, 3))))
    assert result.ok and not result.warnings, result
    outputs = {prompt[key]["class_type"]: output for key, output in result.outputs.items()}
    return outputs, server.images(result, graph.find(prompt, "SaveImage"))


def test_training_template_writes_the_embedding(server: ComfyServer, trained: tuple) -> None:
    path = server.base / "models" / "embeddings" / "my-cat.safetensors"
    with safe_open(path, "np") as file:
        assert list(file.keys()) == ["<my-cat>"]
        assert file.get_tensor("<my-cat>").shape == (1, 768)
        assert file.metadata()["superclass"] == "cat"


def test_training_template_shows_loss_and_pictures(trained: tuple) -> None:
    outputs, pictures = trained
    assert outputs["LossGraphNode"]["images"]
    assert [picture.shape for picture in pictures] == [(SIDE, SIDE, 3)] * 2
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() > 0


@pytest.fixture(scope="module")
def composing(sd1_checkpoint: str, object_info: dict, trained: tuple) -> graph.Prompt:
    """The second template, with the word learned by the first."""
    prompt, _ = template("02-compose-with-boxes", object_info)
    return graph.changed(
        prompt,
        CheckpointLoaderSimple={"ckpt_name": sd1_checkpoint},
        PrimitiveInt={"value": SIDE},
        EmptyLatentImage={"batch_size": 2},
        KSampler={"steps": 3},
    )


def pictures_of(server: ComfyServer, prompt: graph.Prompt) -> np.ndarray:
    result = server.run(prompt)
    assert result.ok and not result.warnings, result
    return np.stack(server.images(result, graph.find(prompt, "SaveImage"))).astype(int)


def test_composing_template_guides(server: ComfyServer, composing: graph.Prompt) -> None:
    unguided = graph.changed(composing, CompInvApplyLayoutGuidance={"strength": 0.0})

    pictures, plain = pictures_of(server, composing), pictures_of(server, unguided)

    assert pictures.shape == (2, SIDE, SIDE, 3)
    assert (np.abs(pictures - plain).max(axis=(1, 2, 3)) > 0).all()


def test_the_learned_word_reaches_the_pictures(server: ComfyServer, composing: graph.Prompt) -> None:
    boxes = composing[graph.find(composing, "CompInvLayoutFromBoxes")]["inputs"]["boxes"]
    without = graph.changed(
        composing,
        CompInvApplyLayoutGuidance={"text": "cat and a ball", "strength": 0.0},
        CompInvLayoutFromBoxes={"phrases": "cat\na ball", "boxes": boxes.replace("embedding:my-cat cat", "cat")},
    )
    with_word = graph.changed(composing, CompInvApplyLayoutGuidance={"strength": 0.0})

    assert np.abs(pictures_of(server, with_word) - pictures_of(server, without)).max() > 0
