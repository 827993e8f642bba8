"""The attention nodes on the server: record, sample, show; with the host's cache, and with bad input."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from support.server import ComfyServer, PromptResult
from support.templates import graph

SIZE = 64
SAMPLING = {
    "steps": 3,
    "cfg": 3.0,
    "sampler_name": "euler",
    "scheduler": "normal",
    "denoise": 1.0,
    "negative": ["negative", 0],
    "latent_image": ["latent", 0],
}
SHOW: graph.Prompt = {
    "checkpoint": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny.safetensors"}},
    "negative": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["checkpoint", 1], "text": "blurry"}},
    "latent": {"class_type": "EmptyLatentImage", "inputs": {"width": SIZE, "height": SIZE, "batch_size": 2}},
    "layout": {
        "class_type": "CompInvLayoutFromBoxes",
        "inputs": {
            "bboxes": {"__value__": [[{"x": 0, "y": 0, "width": 32, "height": 64}]]},
            "phrases": "a cat",
            "width": SIZE,
            "height": SIZE,
        },
    },
    "record": {
        "class_type": "CompInvRecordAttention",
        "inputs": {
            "model": ["checkpoint", 0],
            "clip": ["checkpoint", 1],
            "text": "a cat and a ball",
            "phrases": "a cat\na ball",
        },
    },
    "guide": {
        "class_type": "CompInvApplyLayoutGuidance",
        "inputs": {
            "model": ["record", 0],
            "clip": ["checkpoint", 1],
            "text": "a cat and a ball",
            "layout": ["layout", 0],
            "strength": 30.0,
            "threshold": 0.0,
            "max_iterations": 1,
            "guided_steps": 1,
            "loss": "squared",
            "blocks": "middle and first up",
        },
    },
    "sample": {
        "class_type": "KSampler",
        "inputs": {**SAMPLING, "seed": 1, "model": ["guide", 0], "positive": ["guide", 1]},
    },
    "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["checkpoint", 2]}},
    "show": {
        "class_type": "CompInvShowAttention",
        "inputs": {"attention": ["record", 1], "samples": ["sample", 0], "image": ["decode", 0], "step": -1},
    },
    "maps": {"class_type": "SaveImage", "inputs": {"images": ["show", 0], "filename_prefix": "attention/maps"}},
    "plot": {"class_type": "SaveImage", "inputs": {"images": ["show", 1], "filename_prefix": "attention/plot"}},
}
PLAIN = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["checkpoint", 1], "text": "a cat and a bell"}}
OTHER = {
    "class_type": "KSampler",
    "inputs": {**SAMPLING, "seed": 2, "model": ["checkpoint", 0], "positive": ["negative", 0]},
}
SINGLE = {"class_type": "EmptyImage", "inputs": {"width": SIZE, "height": SIZE, "batch_size": 1, "color": 0}}
TREE = {
    "class_type": "CompInvLayoutFromBoxes",
    "inputs": {**SHOW["layout"]["inputs"], "phrases": "a tree"},
}
BAD_INPUT = {
    "phrase that is not in the prompt": ("phrase .*a dog", {}, {"CompInvRecordAttention": {"phrases": "a dog"}}),
    "no phrase": ("no phrase", {}, {"CompInvRecordAttention": {"phrases": " \n"}}),
    "another prompt in the sampler": ("positive prompt", {"plain": PLAIN}, {"KSampler": {"positive": ["plain", 0]}}),
    "another sampler's latents": (
        "no recorded sampling",
        {"other": OTHER},
        {"CompInvShowAttention": {"samples": ["other", 0]}},
    ),
    "latents without sampling": ("no recorded", {}, {"CompInvShowAttention": {"samples": ["latent", 0]}}),
    "step past the end": ("step.*3 steps", {}, {"CompInvShowAttention": {"step": 3}}),
    "other pictures": ("image", {"single": SINGLE}, {"CompInvShowAttention": {"image": ["single", 0]}}),
    "layout of other phrases": ("layout.*a tree", {"tree": TREE}, {"CompInvShowAttention": {"layout": ["tree", 0]}}),
}


def reports(server: ComfyServer) -> dict[str, dict]:
    folder = server.base / "output" / "compinv" / "reports"
    return {path.name: json.loads(path.read_text()) for path in folder.glob("attention-*.json")}


def saved(server: ComfyServer, result: PromptResult, node: str) -> list[np.ndarray]:
    folder = server.base / "output" / "attention"
    return [np.asarray(Image.open(folder / image["filename"])) for image in result.outputs[node]["images"]]


def test_maps_plot_and_report_of_a_guided_sampling_and_its_repetition(server: ComfyServer) -> None:
    earlier = reports(server)
    result = server.run(SHOW)
    assert result.ok, result
    sheets = saved(server, result, "maps")
    # All steps, before guidance, after guidance; two phrases of at least 256 pixels.
    assert [sheet.shape for sheet in sheets] == [(3 * (256 + 58), 2 * 262 + 6, 3)] * 2
    assert not np.array_equal(*sheets)
    (plot,) = saved(server, result, "plot")
    assert plot.shape == (1600, 960, 3)
    (name,) = reports(server).keys() - earlier
    report = reports(server)[name]
    assert report["settings"]["guided steps"] == [0]
    assert report["settings"]["boxes"] == {"a cat": [0.0, 0.0, 0.5, 1.0]}
    assert report["models"]["model"].startswith("tiny.safetensors")
    assert report["seeds"] == [1] and report["prompts"] == ["a cat and a ball"]
    for row in report["rows"]:
        assert len(row["similarity"]["a cat / a ball"]) == 3
        assert len(row["query-key similarity"]["a ball"]) == len(row["attention mass"]["a cat"]) == 3
        assert row["in-box mass"]["a cat"][0] != row["in-box mass before guidance"]["a cat"][0]

    # The sampler's result now comes from the host's cache; only this node runs again.
    again = server.run(graph.changed(SHOW, CompInvShowAttention={"step": 2}))
    assert again.ok, again
    assert saved(server, again, "maps")[0].shape[0] == 256 + 58
    assert reports(server).keys() - earlier == {name}

    # Another sampling of the same recorded model, and then the first one from the cache.
    other = server.run(graph.changed(SHOW, KSampler={"seed": 2}))
    assert other.ok, other
    (second,) = reports(server).keys() - earlier - {name}
    assert reports(server)[second]["seeds"] == [2]
    first = server.run(graph.changed(SHOW, CompInvShowAttention={"step": 1}))
    assert first.ok, first
    assert reports(server).keys() - earlier == {name, second}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_gets_a_sentence(server: ComfyServer, name: str) -> None:
    words, nodes, inputs = BAD_INPUT[name]
    result = server.run({**graph.changed(SHOW, **inputs), **nodes})
    sentence = result.error
    assert result.error_type.endswith("UserError"), result
    assert re.search(words, sentence), sentence
    assert len(re.findall(r"[.!?](?=\s|$)", sentence)) == 1 and sentence.endswith("."), sentence
    assert re.search(r"; \w+", sentence), sentence


def test_one_phrase_has_maps_and_a_plot(server: ComfyServer) -> None:
    result = server.run(graph.changed(SHOW, CompInvRecordAttention={"phrases": "a ball"}))
    assert result.ok, result
    (plot,) = saved(server, result, "plot")
    assert plot.shape == (1200, 960, 3)
