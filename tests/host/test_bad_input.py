"""Bad input gets one sentence that names the input and the cure, and the server goes on."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pytest

from support.server import ComfyServer, PromptResult
from support.templates import graph

TRAIN: graph.Prompt = {
    "checkpoint": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny.safetensors"}},
    "images": {"class_type": "LoadImage", "inputs": {"image": "my-cat-1.png"}},
    "anchors": {
        "class_type": "CompInvLoadAnchors",
        "inputs": {"clip": ["checkpoint", 1], "vocabulary": "coco80", "extra_words": ""},
    },
    "train": {
        "class_type": "CompInvTrainConcept",
        "inputs": {
            "model": ["checkpoint", 0],
            "clip": ["checkpoint", 1],
            "vae": ["checkpoint", 2],
            "images": ["images", 0],
            "anchors": ["anchors", 0],
            "name": "bad-input",
            "superclass": "cat",
            "init_word": "",
            "num_vectors": 1,
            "steps": 100_000,
            "batch_size": 1,
            "learning_rate": 0.005,
            "anchor_weight": 0.95,
            "max_active_anchors": 4,
            "recode_every": 100,
            "sparse_coder": "nn_omp",
            "anchor_reduction": "seq_mean",
            "template": "object",
            "preview_every": 0,
            "preview_prompt": "a photo of {}",
            "save_every": 100,
            "resume": True,
            "seed": 0,
            "preset": "paper",
        },
    },
    "save": {"class_type": "CompInvSaveConcept", "inputs": {"concept": ["train", 0], "filename": ""}},
}
BOX = {"x": 8, "y": 8, "width": 64, "height": 96}
GUIDE: graph.Prompt = {
    "checkpoint": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny.safetensors"}},
    "latent": {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}},
    "layout": {
        "class_type": "CompInvLayoutFromBoxes",
        "inputs": {"bboxes": {"__value__": [[BOX]]}, "phrases": "a cat", "width": 128, "height": 128},
    },
    "guide": {
        "class_type": "CompInvApplyLayoutGuidance",
        "inputs": {
            "model": ["checkpoint", 0],
            "clip": ["checkpoint", 1],
            "layout": ["layout", 0],
            "text": "a cat and a ball",
            "strength": 30.0,
            "threshold": 0.2,
            "max_iterations": 5,
            "guided_steps": 10,
            "loss": "squared",
            "blocks": "middle and first up",
        },
    },
    "sample": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["guide", 0],
            "positive": ["guide", 1],
            "negative": ["guide", 1],
            "latent_image": ["latent", 0],
            "seed": 1,
            "steps": 1,
            "cfg": 1.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1.0,
        },
    },
    "output": {"class_type": "SaveLatent", "inputs": {"samples": ["sample", 0], "filename_prefix": "bad-input"}},
}
OTHER_MASK = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 64, "height": 96}}
NAN_LATENT = {"class_type": "LoadLatent", "inputs": {"latent": "nan.latent"}}
NAN_PICTURE = {"class_type": "VAEDecode", "inputs": {"samples": ["nan", 0], "vae": ["checkpoint", 2]}}
REFINER = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "refiner.safetensors"}}


def folder(name: str) -> dict:
    return {"class_type": "LoadImageDataSetFromFolder", "inputs": {"folder": name}}


@dataclass(frozen=True)
class Case:
    """A change of inputs by node type, nodes added or replaced, and the words that the sentence must hold."""

    base: graph.Prompt
    words: str
    inputs: dict[str, dict] = field(default_factory=dict)
    nodes: dict[str, dict] = field(default_factory=dict)

    @property
    def prompt(self) -> graph.Prompt:
        return graph.changed({**self.base, **self.nodes}, **self.inputs)


def train(words: str, nodes: dict[str, dict] | None = None, **inputs: object) -> Case:
    return Case(TRAIN, words, {"CompInvTrainConcept": inputs}, nodes or {})


def guide(words: str, nodes: dict[str, dict] | None = None, **inputs: object) -> Case:
    return Case(GUIDE, words, {"CompInvApplyLayoutGuidance": inputs}, nodes or {})


def layout(words: str, **inputs: object) -> Case:
    return Case(GUIDE, words, {"CompInvLayoutFromBoxes": inputs})


CASES = {
    "empty name": train("name", name=""),
    "blank name": train("name", name="   "),
    "name with a slash": train("name .*a/b", name="a/b"),
    "name that leaves its folder": train(r"name .*\.\./up", name="../up"),
    "empty superclass": train("superclass", superclass=""),
    "unknown init word": train("init_word: .*xqzvbnkj", init_word="xqzvbnkj"),
    "init word without letters": train("init_word", init_word="!!!"),
    "images of different sizes": train("images .*size", {"images": folder("two-sizes")}),
    "mask of another size": train("mask .*64x96", {"mask": OTHER_MASK}, mask=["mask", 0]),
    "picture of NaN": train("images .*NaN", {"nan": NAN_LATENT, "images": NAN_PICTURE}),
    "refiner for training": train("model .*Stable Diffusion 1", {"other": REFINER}, model=["other", 0]),
    "phrase that is not in the prompt": guide("phrase .*a cat", text="a dog and a ball"),
    "embedding that is not there": Case(
        GUIDE,
        "embedding .*nowhere",
        {
            "CompInvApplyLayoutGuidance": {"text": "embedding:nowhere cat"},
            "CompInvLayoutFromBoxes": {"phrases": "embedding:nowhere cat"},
        },
    ),
    "refiner for guidance": guide("model .*Stable Diffusion 1", {"other": REFINER}, model=["other", 0]),
    "box outside the picture": layout("bboxes", bboxes={"__value__": [[{**BOX, "x": 100}]]}),
    "box without an area": layout("bboxes", bboxes={"__value__": [[{**BOX, "width": 0}]]}),
    "more phrases than boxes": layout("phrases", phrases="a cat\na ball"),
    "the same phrase twice": layout("phrases", bboxes={"__value__": [[BOX, BOX]]}, phrases="a cat\nA cat"),
    "filename that leaves its folder": Case(
        TRAIN, "filename", {"CompInvTrainConcept": {"steps": 1}, "CompInvSaveConcept": {"filename": "../../up"}}
    ),
}


def complaint(result: PromptResult) -> str:
    """What the person sees: a node's exception, or the refusal of an input before the run."""
    for node in result.node_errors.values():
        return " ".join(error["details"] for error in node["errors"])
    return result.error


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gets_a_sentence(server: ComfyServer, name: str) -> None:
    case = CASES[name]
    result = server.run(case.prompt, timeout=120)
    sentence = complaint(result)

    assert not result.ok
    assert result.error_type.endswith("UserError"), result
    assert re.search(case.words, sentence, re.DOTALL), sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert len(re.findall(r"[.!?](?=\s|$)", sentence)) == 1, f"more than one sentence: {sentence}"
    # A cure, not only a complaint: what to do stands behind a semicolon.
    assert re.search(r"; \w+", sentence), sentence


def test_superclass_of_several_tokens_is_taken(server: ComfyServer) -> None:
    prompt = graph.changed(TRAIN, CompInvTrainConcept={"name": "teddy", "superclass": "teddy bear", "steps": 2})
    result = server.run(prompt)
    assert result.ok, result


def test_the_server_goes_on(server: ComfyServer) -> None:
    assert not server.run(CASES["phrase that is not in the prompt"].prompt).ok
    result = server.run(GUIDE)
    assert result.ok, result
