"""The templates of Custom Diffusion, DreamBooth and two concepts, through the real server on small models."""

from __future__ import annotations

import json

import numpy as np
import pytest

from support.locations import REPOSITORY
from support.server import ComfyServer
from support.templates import graph

SIDE = 128
SHORT = {"steps": 2, "num_class_images": 1, "batch_size": 2, "learning_rate": 0.001}


@pytest.fixture(scope="module")
def object_info(server: ComfyServer) -> dict:
    return server.get("/object_info")


def short_prompt(name: str, trainer: str, checkpoint: str, object_info: dict) -> graph.Prompt:
    """A template with small pictures and few steps; everything else is as people get it."""
    prompt = graph.to_prompt(json.loads((REPOSITORY / "workflows" / f"{name}.json").read_text()), object_info)
    things = ("my-cat", "my-ball")[: 2 if name.startswith("07") else 1]
    prompt = graph.with_photos(prompt, *(f"{thing}-{number}.png" for thing in things for number in (1, 2, 3)))
    return graph.changed(
        prompt,
        CheckpointLoaderSimple={"ckpt_name": checkpoint},
        ImageScale={"width": SIDE, "height": SIDE},
        EmptyLatentImage={"batch_size": 1},
        KSampler={"steps": 3},
        **{trainer: SHORT},
    )


def pictures_of(server: ComfyServer, prompt: graph.Prompt) -> np.ndarray:
    result = server.run(prompt)
    assert result.ok and not result.warnings, result
    assert result.outputs[graph.find(prompt, "LossGraphNode")]["images"]
    return np.stack(server.images(result, graph.find(prompt, "SaveImage"))).astype(int)


@pytest.mark.parametrize(
    ("name", "trainer"),
    [
        ("05-custom-diffusion", "CompInvTrainCustomDiffusion"),
        ("06-dreambooth", "CompInvTrainDreamBooth"),
    ],
)
def test_one_concept(server: ComfyServer, sd1_checkpoint: str, object_info: dict, name: str, trainer: str) -> None:
    prompt = short_prompt(name, trainer, sd1_checkpoint, object_info)
    prompt[graph.find(prompt, trainer)]["inputs"]["name"] = concept = f"{name}-{sd1_checkpoint.split('.')[0]}"

    pictures = pictures_of(server, prompt)

    assert pictures.shape == (1, SIDE, SIDE, 3) and pictures.std() > 0
    assert (server.base / "models" / "embeddings" / f"{concept}.safetensors").is_file()
    if trainer == "CompInvTrainCustomDiffusion":
        assert (server.base / "models" / "loras" / f"{concept}.safetensors").is_file()
    else:
        assert list((server.base / "output" / "checkpoints").glob("my-cat-db*.safetensors"))


def test_two_concepts_are_guided_on_the_trained_model(
    server: ComfyServer, sd1_checkpoint: str, object_info: dict
) -> None:
    prompt = short_prompt("07-two-concepts", "CompInvTrainCustomDiffusion", sd1_checkpoint, object_info)
    canvas = prompt[graph.find(prompt, "CreateBoundingBoxes")]["inputs"]
    boxes = [
        {key: value * SIDE / canvas["width"] if isinstance(value, int) else value for key, value in box.items()}
        for box in canvas["editor_state"]["__value__"]
    ]
    canvas.update(width=SIDE, height=SIDE, editor_state={"__value__": boxes})
    unguided = graph.changed(prompt, CompInvApplyLayoutGuidance={"strength": 0.0})

    pictures, plain = pictures_of(server, prompt), pictures_of(server, unguided)

    assert np.abs(pictures - plain).max() > 0
    assert all(
        (server.base / "models" / "embeddings" / f"my-{thing}-joint.safetensors").is_file() for thing in ("cat", "ball")
    )
