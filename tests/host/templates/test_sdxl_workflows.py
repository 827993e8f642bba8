"""The templates for Stable Diffusion XL through the real server and its own checkpoint loader, on random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from support import checkpoints
from support.locations import REPOSITORY
from support.server import ComfyServer
from support.templates import graph
from support.templates.sdxl_workflows import CHECKPOINT

SIDE = 128


def template(server: ComfyServer, name: str, **changes: dict) -> graph.Prompt:
    workflow = json.loads((REPOSITORY / "workflows" / f"{name}.json").read_text())
    return graph.changed(graph.to_prompt(workflow, server.get("/object_info")), **changes)


@pytest.fixture(scope="module")
def trained(server: ComfyServer) -> ComfyServer:
    """The server, on which the first template has run with photos of three sizes."""
    server.add_checkpoint(checkpoints.build("sdxl_deep"), CHECKPOINT)
    for number, size in enumerate(((96, 64), (64, 96), (64, 96)), 1):
        with Image.open(server.base / "input" / f"my-cat-{number}.png") as photo:
            photo.convert("RGB").resize(size).save(server.base / "input" / f"wide-cat-{number}.png")
    prompt = template(
        server,
        "01-train-concept-sdxl",
        CompInvTrainConcept={"steps": 2},
        EmptyLatentImage={"width": SIDE, "height": SIDE},
        KSampler={"steps": 2},
    )
    result = server.run(graph.with_photos(prompt, *(f"wide-cat-{number}.png" for number in (1, 2, 3))))
    # Photos of this size are too small for a model of this family, as is said.
    assert result.ok and all("has small photos" in said for said in result.warnings), result
    assert server.images(result, graph.find(prompt, "SaveImage"))[0].shape == (SIDE, SIDE, 3)
    return server


def test_a_word_of_photos_of_several_sizes_has_vectors_for_both_text_encoders(trained: ComfyServer) -> None:
    with safe_open(trained.base / "models" / "embeddings" / "my-cat-xl.safetensors", "np") as file:
        assert {key: file.get_tensor(key).shape for key in file.keys()} == {"clip_l": (1, 768), "clip_g": (1, 1280)}  # noqa: SIM118
        assert file.metadata()["superclass"] == "cat"


def test_the_composing_template_guides_the_word(trained: ComfyServer) -> None:
    small = {"KSampler": {"steps": 2}, "PrimitiveInt": {"value": SIDE}}
    prompt = template(trained, "02-compose-with-boxes-sdxl", **small)
    guided = graph.changed(prompt, CompInvApplyLayoutGuidance={"guided_share": 1.0})
    plain = graph.changed(guided, CompInvApplyLayoutGuidance={"strength": 0.0})
    pictures = []
    for each in (guided, plain):
        result = trained.run(each)
        assert result.ok and not result.warnings, result
        pictures.append(trained.images(result, graph.find(each, "SaveImage"))[0].astype(int))
    assert pictures[0].shape == (SIDE, SIDE, 3) and np.abs(pictures[0] - pictures[1]).max() > 0


def test_the_predicted_layout_template_shows_the_attention(trained: ComfyServer) -> None:
    prompt = template(
        trained,
        "03-compose-with-predicted-layout-sdxl",
        CompInvLoadLayoutPredictor={"filename": "side-by-side"},
        CompInvPredictLayout={"width": SIDE, "height": SIDE},
        CreateBoundingBoxes={"width": SIDE, "height": SIDE},
        KSampler={"steps": 2},
    )
    result = trained.run(prompt)
    assert result.ok and not result.warnings, result
    assert {prompt[key]["class_type"] for key in result.outputs} >= {"SaveImage", "PreviewImage"}
