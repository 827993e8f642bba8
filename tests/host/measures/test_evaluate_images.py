"""Evaluate Images on the server: numbers, report file, the host's cache, and one sentence for every bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from support.models.encoder_folders import edit_json, save_clip, save_dino
from support.server import ComfyServer

PROMPT = "a photo of a boat and a moon"


@pytest.fixture(scope="module")
def models(server: ComfyServer) -> Path:
    """The server's models, with small encoders among them, and pictures in its input folder."""
    folder = server.base / "models" / "compinv" / "encoders"
    save_clip(folder / "small-clip")
    save_dino(folder / "small-dino")
    save_clip(folder / "broken-clip")
    edit_json(folder / "broken-clip" / "preprocessor_config.json", image_processor_type="Sam")
    from miniworld.world.dataset import scene_rng
    from miniworld.world.scenes import render_scene

    for name, nouns in (("both", ["boat", "moon"]), ("one", ["moon"]), ("photo", ["boat"])):
        Image.fromarray(render_scene(scene_rng(9, 3), nouns).image).save(server.base / "input" / f"{name}.png")
    Image.fromarray(render_scene(scene_rng(9, 4), ["boat"]).image).resize((96, 64)).save(
        server.base / "input" / "wide.png"
    )
    return folder


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def graph(clip: str = "small-clip", detector: bool = True, **changes: Any) -> dict[str, Any]:
    prompt = {
        "both": node("LoadImage", image="both.png"),
        "one": node("LoadImage", image="one.png"),
        "photo": node("LoadImage", image="photo.png"),
        "images": node("ImageBatch", image1=["both", 0], image2=["one", 0]),
        "evaluate": node(
            "CompInvEvaluateImages",
            images=["images", 0],
            references=["photo", 0],
            prompt=PROMPT,
            concepts="boat\nmoon",
            clip_model=clip,
        ),
    }
    if detector:
        prompt["detector"] = node("CompInvLoadDetector", backend="detr", model="miniature world", threshold=0.5)
        prompt["evaluate"]["inputs"]["detector"] = ["detector", 0]
    for number, name in enumerate(("text_alignment", "image_alignment", "coi_likelihood"), 2):
        prompt[name] = node("PreviewAny", source=["evaluate", number])
    prompt["evaluate"]["inputs"] |= changes
    return prompt


def reports(server: ComfyServer) -> dict[str, dict]:
    return {file.name: json.loads(file.read_text()) for file in (server.base / "output/compinv/reports").glob("eval*")}


def test_numbers_text_and_report(server: ComfyServer, models: Path) -> None:
    before = set(reports(server))
    result = server.run(graph(image_model="small-dino"))
    assert result.ok, result
    ((_, report),) = ((name, each) for name, each in reports(server).items() if name not in before)
    assert [row["counts"] for row in report["rows"]] == [{"boat": 1, "moon": 1}, {"boat": 0, "moon": 1}]
    assert report["summary"]["coi_likelihood"] == 0.75 and report["summary"]["all_there"] == 0.5
    assert report["models"]["clip"] == "small-clip" and report["models"]["image model 1"] == "small-dino"
    shown = {name: float(result.outputs[name]["text"][0]) for name in ("text_alignment", "image_alignment")}
    assert shown == {name: pytest.approx(report["summary"][name], abs=1e-6) for name in shown}
    assert "likelihood of the concepts: 0.750" in result.outputs["evaluate"]["text"][0]

    from compinv_core.measures.encoders import load_clip
    from compinv_core.measures.likeness import cosines

    files = [np.asarray(Image.open(server.base / "input" / f"{name}.png")) for name in ("both", "one", "photo")]
    clip = load_clip(models / "small-clip", "")
    both, one, photo = clip.encode_images(torch.from_numpy(np.stack(files)).float() / 255)
    alike = cosines(torch.stack([both, one]), photo[None]).mean()
    assert report["summary"]["image_alignment"] == pytest.approx(float(alike), abs=1e-4)


def test_pictures_and_photos_of_several_sizes(server: ComfyServer, models: Path) -> None:
    prompt = graph(detector=False, concepts="", references=["list", 0], images=["list", 0])
    prompt["wide"] = node("LoadImage", image="wide.png")
    prompt["list"] = node("CreateList", **{"inputs.input0": ["photo", 0], "inputs.input1": ["wide", 0]})
    result = server.run(prompt)
    assert result.ok, result
    assert "2 pictures, 2 photos" in result.outputs["evaluate"]["text"][0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clip": "choose a CLIP"}, "has no CLIP yet; choose one in `clip_model`"),
        ({"clip": "openai/clip-vit-base-patch32"}, "HF_HUB_OFFLINE forbids it; unset that variable, or put the folder"),
        ({"clip": "broken-clip"}, 'The preprocessing of "broken-clip" is "Sam"'),
        ({"prompt": "a boat"}, 'the prompt does not name "moon"'),
        ({"prompt": "embedding:my-boat boat and a moon"}, "write the class word in its place"),
        ({"concepts": "boat\nteapot", "prompt": "a boat and a teapot"}, 'does not find "teapot"'),
        ({"concepts": ""}, "has a detector and no `concepts`"),
    ],
)
def test_bad_input_gets_a_sentence(server: ComfyServer, models: Path, changes: dict, words: str) -> None:
    result = server.run(graph(**changes))
    assert words in result.error, result
    assert result.error_type.endswith("UserError") and result.error_node == "CompInvEvaluateImages"
    assert "; " in result.error and "\n" not in result.error


def test_a_changed_folder_is_read_anew(server: ComfyServer, models: Path) -> None:
    folder = save_clip(models / "changing-clip")
    assert server.run(graph("changing-clip", detector=False, concepts="")).ok
    edit_json(folder / "preprocessor_config.json", image_processor_type="Sam")
    assert 'is "Sam"' in server.run(graph("changing-clip", detector=False, concepts="")).error


def test_phrases_and_class_noun_are_typed_once(server: ComfyServer, models: Path) -> None:
    vectors = torch.randn(1, 768, generator=torch.Generator().manual_seed(1)) * 0.0137
    save_file({"a-boat": vectors}, str(server.base / "models" / "embeddings" / "a-boat.safetensors"))
    half = {"y0": 0, "y1": 1}
    boxes = [
        {"phrase": "a embedding:my-boat boat", "x0": 0, "x1": 0.5, **half},
        {"phrase": "a moon", "x0": 0.5, "x1": 1, **half},
    ]
    prompt = graph(prompt="", concepts="", layout=["layout", 0], concept=["word", 0]) | {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name="tiny.safetensors"),
        "word": node(
            "CompInvAdjustEmbedding", clip=["checkpoint", 1], embedding="a-boat.safetensors", superclass="boat",
            strength=0.0, filename="my-boat",
        ),
        "layout": node(
            "CompInvLayoutFromBoxes", phrases="a embedding:my-boat boat\na moon", width=64, height=64,
            boxes=json.dumps(boxes),
        ),
    }  # fmt: skip
    before = set(reports(server))
    result = server.run(prompt)
    assert result.ok, result
    ((_, report),) = ((name, each) for name, each in reports(server).items() if name not in before)
    assert report["prompts"] == ["a boat and a moon"]
    assert report["settings"]["concepts"] == ["a boat", "a moon"]
    assert [row["counts"] for row in report["rows"]] == [{"a boat": 1, "a moon": 1}, {"a boat": 0, "a moon": 1}]
