"""The training nodes on the real server: a whole training, its stop button, and one sentence for every bad input."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from support.server import ComfyServer

Prompt = dict[str, dict[str, Any]]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def training_prompt(**settings: Any) -> Prompt:
    """Three flat pictures, two anchors, two steps; connected inputs and widgets can be replaced."""
    inputs = {
        "model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "images": ["2", 0], "anchors": ["3", 0],
        "name": "server-cat", "superclass": "cat", "init_word": "", "num_vectors": 1, "steps": 2, "batch_size": 1,
        "learning_rate": 0.005, "anchor_weight": 0.95, "max_active_anchors": 4, "recode_every": 1,
        "sparse_coder": "nn_omp", "anchor_reduction": "seq_mean", "template": "object", "preview_every": 0,
        "preview_prompt": "a photo of {}", "save_every": 1, "resume": True, "seed": 0, "preset": "paper",
    }  # fmt: skip
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name="tiny.safetensors"),
        "2": node("EmptyImage", width=64, height=64, batch_size=3, color=0x336699),
        "3": node("CompInvLoadAnchors", clip=["1", 1], vocabulary="none", extra_words="dog, teddy bear"),
        "4": node("CompInvTrainConcept", **{**inputs, **settings}),
        "5": node("CompInvSaveConcept", concept=["4", 0], filename="server-copy"),
        "6": node("PreviewAny", source=["4", 1]),
        "7": node("LossGraphNode", loss=["4", 2], filename_prefix="loss"),
        "8": node("PreviewAny", source=["4", 3]),
        "9": node("PreviewAny", source=["5", 1]),
    }


def test_training_writes_the_embedding_and_its_copy(server: ComfyServer) -> None:
    result = server.run(training_prompt())
    assert result.ok, result
    assert result.outputs["6"]["text"] == ["embedding:server-cat"]
    assert [result.outputs[key]["text"][0] for key in "89"] == ["embedding:server-cat cat", "embedding:server-copy cat"]
    assert len(result.outputs["7"]["images"]) == 1
    folder = server.base / "models" / "embeddings"
    tensors = []
    for name in ("server-cat", "server-copy"):
        with safe_open(folder / f"{name}.safetensors", framework="pt") as file:
            assert list(file.keys()) == [f"<{name}>"] and file.metadata()["superclass"] == "cat"
            tensors.append(file.get_tensor(f"<{name}>"))
    assert torch.equal(*tensors) and tensors[0].shape == (1, 768)
    assert (server.base / "output" / "compinv" / "runs" / "server-cat" / "state.safetensors").is_file()


def test_a_list_of_photos_is_one_training(server: ComfyServer) -> None:
    prompt = training_prompt(name="listed", images=["9", 0])
    for key, color in (("8", 0x112233), ("10", 0x998877)):
        prompt[key] = node("EmptyImage", width=64, height=64, batch_size=1, color=color)
    prompt["9"] = node("CreateList", **{"inputs.input0": ["8", 0], "inputs.input1": ["10", 0]})
    for key in ("5", "6", "7"):
        prompt.pop(key)
    with server.events() as events:
        result = server.run(prompt)
    assert result.ok, result
    totals = [e["data"] for e in events if e["type"] == "progress" and e["data"]["node"] == "4"]
    assert totals and all(data["max"] == 2 for data in totals)
    prompt["10"]["inputs"]["width"] = 72
    assert "different sizes (64x64, 72x64)" in server.run(prompt).error


def test_stop_button_ends_a_training_and_it_resumes(server: ComfyServer) -> None:
    prompt = training_prompt(name="stopped", steps=5000)
    with server.events() as events:
        prompt_id = server.queue(prompt)
        deadline = time.monotonic() + 300
        # Encoding the photos shows progress, too, with a maximum of its own; before the first step there is no state.
        while not [e for e in events if e["type"] == "progress" and e["data"]["max"] == 5000 and e["data"]["value"]]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.interrupt()
        result = server.wait(prompt_id)
    assert result.interrupted
    state = server.base / "output" / "compinv" / "runs" / "stopped" / "state.safetensors"
    with safe_open(state, framework="pt") as file:
        assert len(file.get_tensor("optimizer.0.exp_avg")) >= 1 and file.metadata()["run"].startswith("{")
    other = server.run(training_prompt(name="stopped", steps=5000, seed=1))
    assert "unfinished training" in other.error and "seed" in other.error


BAD_WIDGETS = [
    ({"name": ""}, "name is empty"),
    ({"name": "../evil"}, 'name is "../evil"'),
    ({"name": "a/b"}, 'name is "a/b"'),
    ({"superclass": ""}, "superclass is empty"),
    ({"init_word": "qwzxv"}, 'init_word: "qwzxv" is not a word'),
    ({"preview_every": 1, "preview_prompt": "a cat"}, "exactly once"),
]


@pytest.mark.parametrize(("settings", "sentence"), BAD_WIDGETS)
def test_bad_widgets_get_a_sentence_and_the_server_goes_on(
    server: ComfyServer, settings: dict[str, Any], sentence: str
) -> None:
    result = server.run(training_prompt(**{"name": "never", **settings}))
    assert sentence in result.error and result.error.count(". ") == 0 and result.error_type.endswith("UserError")
    assert result.error_node == "CompInvTrainConcept"
    assert not (server.base / "models" / "embeddings" / "never.safetensors").exists()
    assert server.get("/system_stats")


def test_bad_connections_get_a_sentence(server: ComfyServer) -> None:
    Image.new("RGB", (32, 32), "white").save(server.base / "input" / "mask.png")
    prompt = training_prompt(name="never", model=["8", 0])
    prompt["8"] = node("CheckpointLoaderSimple", ckpt_name="refiner.safetensors")
    assert "only Stable Diffusion 1" in server.run(prompt).error
    prompt = training_prompt(name="never", mask=["8", 0])
    prompt["8"] = node("LoadImageMask", image="mask.png", channel="red")
    assert "mask is 32x32 but the images are 64x64" in server.run(prompt).error


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"extra_words": ""}, "list of anchors is empty"), ({"extra_words": "!!!"}, "no letters")],
)
def test_bad_anchors_get_a_sentence(server: ComfyServer, settings: dict[str, Any], sentence: str) -> None:
    prompt = training_prompt(name="never")
    prompt["3"]["inputs"].update(settings)
    assert sentence in server.run(prompt).error


def test_own_anchor_lists_are_offered(server: ComfyServer) -> None:
    folder = server.base / "models" / "compinv" / "anchors"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pets.txt").write_text("cat\nhamster\n")
    options = server.get("/object_info/CompInvLoadAnchors")["CompInvLoadAnchors"]["input"]["required"]["vocabulary"]
    assert "pets" in str(options) and "coco80" in str(options)
    prompt = training_prompt(name="pets")
    prompt["3"]["inputs"].update(vocabulary="pets", extra_words="", base=["8", 0])
    prompt["8"] = node("CompInvLoadAnchors", clip=["1", 1], vocabulary="coco80", extra_words="")
    assert server.run(prompt).ok
    (folder / "pets.txt").write_text("!!!\n")
    assert "no letters" in server.run(prompt).error
    prompt["3"]["inputs"]["vocabulary"] = "../secrets"
    assert not server.run(prompt).ok
