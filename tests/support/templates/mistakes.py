"""Graphs with one mistake each, and what is said of it on which node; small enough to run in a second or two."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .. import pictures
from .graph import Prompt, changed

SIDE = 64
BOXES = [{"x0": x0, "y0": 0.1, "x1": x0 + 0.4, "y1": 0.9} for x0 in (0.05, 0.55)]


@dataclass(frozen=True)
class Mistake:
    """A graph, the type of the node that says what is wrong with it, a part of the sentence, and its sign."""

    prompt: Prompt
    node: str
    sentence: str
    sign: str = "⚠"


def write_inputs(base: Path) -> None:
    """Write the words and pictures that the graphs use below a server's base directory."""
    from compinv_core.learning.concept import Concept
    from compinv_core.learning.embedding_file import write_concept

    generator = torch.Generator().manual_seed(1)
    words = {"with-class": ("object with class", {"clip_l": 768}), "alone": ("object", {"clip_l": 768})}
    for name, (template, widths) in {**words, "of-xl": ("object", {"clip_l": 768, "clip_g": 1280})}.items():
        vectors = torch.randn(1, sum(widths.values()), generator=generator) * 0.02
        metadata = {"template": template, "templates": "()", "compinv_version": "0"}
        concept = Concept(name, "cat", vectors, metadata, widths=widths)
        write_concept(concept, base / "models" / "embeddings" / f"{name}.safetensors")
    for number in (1, 2, 3):
        pictures.photo(base / "input" / f"busy-{number}.png", number, noise=256)
    with Image.open(base / "input" / "my-cat-1.png") as photo:
        cut_out = photo.convert("RGBA")
    middle = Image.new("L", cut_out.size)
    middle.paste(255, (32, 32, 96, 96))
    cut_out.putalpha(middle)
    cut_out.save(base / "input" / "cut-out.png")


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def guided(text: str = "a cat and a ball", phrases: str = "a cat\na ball", **sampler: Any) -> Prompt:
    """Return a graph of two things in two boxes, with nothing wrong."""
    drawn = [{**box, "phrase": phrase} for box, phrase in zip(BOXES, phrases.splitlines(), strict=False)]
    return {
        "1": _node("CheckpointLoaderSimple", ckpt_name="tiny.safetensors"),
        "3": _node("CompInvLayoutFromBoxes", phrases=phrases, width=SIDE, height=SIDE, boxes=json.dumps(drawn)),
        "4": _node(
            "CompInvApplyLayoutGuidance", model=["1", 0], clip=["1", 1], layout=["3", 0], text=text, strength=30.0,
            threshold=0.2, max_iterations=1, guided_steps=1, loss="squared", blocks="middle", end_percent=1.0,
        ),
        "5": _node("CLIPTextEncode", clip=["1", 1], text="grass"),
        "6": _node("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=1),
        "7": _node("KSampler", **{
            "model": ["4", 0], "positive": ["4", 1], "negative": ["5", 0], "latent_image": ["6", 0], "seed": 1,
            "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, **sampler,
        }),
        "8": _node("VAEDecode", samples=["7", 0], vae=["1", 2]),
        "9": _node("PreviewImage", images=["8", 0]),
    }  # fmt: skip


def trained(*photos: str, mask: bool = False) -> Prompt:
    """Return a graph that trains for a step on photos of the input folder, with the first one's alpha for all masks."""
    loading = {f"p{number}": _node("LoadImage", image=name) for number, name in enumerate(photos)}
    batch = {f"images.image{number}": [key, 0] for number, key in enumerate(loading)}
    prompt = {
        "1": _node("CheckpointLoaderSimple", ckpt_name="tiny.safetensors"),
        **loading,
        "photos": _node("BatchImagesNode", **batch),
        "train": _node(
            "CompInvTrainConcept", model=["1", 0], clip=["1", 1], vae=["1", 2], images=["photos", 0], name="mistaken",
            superclass="cat", init_word="", num_vectors=1, steps=1, batch_size=1, learning_rate=0.005,
            anchor_weight=0.95, max_active_anchors=4, recode_every=100, sparse_coder="nn_omp",
            anchor_reduction="seq_mean", template="object", preview_every=0, preview_prompt="a photo of {}",
            save_every=100, resume=False, seed=0,
        ),
    }  # fmt: skip
    if mask:
        prompt["train"]["inputs"]["mask"] = ["p0", 1]
    return prompt


def _late_words() -> Prompt:
    """The words of the layout count in the last steps alone."""
    prompt = guided()
    prompt["late"] = _node("ConditioningSetTimestepRange", conditioning=["4", 1], start=0.9, end=1.0)
    prompt["early"] = _node("ConditioningSetTimestepRange", conditioning=["5", 0], start=0.0, end=0.9)
    prompt["both"] = _node("ConditioningCombine", conditioning_1=["late", 0], conditioning_2=["early", 0])
    prompt["7"]["inputs"]["positive"] = ["both", 0]
    return prompt


_APPLY, _TRAIN = "CompInvApplyLayoutGuidance", "CompInvTrainConcept"
_CATS = ("my-cat-1.png", "my-cat-2.png", "my-cat-3.png")
_NO_BOXES: dict[str, Any] = {"CompInvLayoutFromBoxes": {"boxes": ""}}

MISTAKES: dict[str, Callable[[], Mistake]] = {
    "no boxes": lambda: Mistake(changed(guided(), **_NO_BOXES), "CompInvLayoutFromBoxes", "no box has come in"),
    "empty layout": lambda: Mistake(guided(phrases=""), _APPLY, "the layout has no box"),
    "model left out": lambda: Mistake(guided(model=["1", 0]), _APPLY, "with another model"),
    "positive left out": lambda: Mistake(guided(positive=["5", 0]), _APPLY, "with another prompt"),
    "no step in range": lambda: Mistake(
        changed(guided(denoise=0.3), CompInvApplyLayoutGuidance={"end_percent": 0.01}), _APPLY, "was guided, for all"
    ),
    "words too late": lambda: Mistake(_late_words(), _APPLY, "were not in use in the guided steps"),
    "without class": lambda: Mistake(
        guided("embedding:with-class and a ball", "embedding:with-class\na ball"), _APPLY, "before its class noun"
    ),
    "with class": lambda: Mistake(
        guided("embedding:alone cat and a ball", "embedding:alone cat\na ball"), _APPLY, "was trained alone"
    ),
    "other family": lambda: Mistake(guided("a cat and a ball, embedding:of-xl"), _APPLY, "Stable Diffusion XL"),
    "inverted mask": lambda: Mistake(
        trained("cut-out.png", mask=True), _TRAIN, "white along the whole edge of the picture"
    ),
    "empty mask": lambda: Mistake(trained(*_CATS, mask=True), _TRAIN, "No photo of mistaken has a mask", "ℹ"),
    "few photos": lambda: Mistake(trained(*_CATS[:2]), _TRAIN, "has only 2 photos"),
    "photos alike": lambda: Mistake(trained(_CATS[0], _CATS[0], _CATS[1]), _TRAIN, "nearly the same (number 1 and 2)"),
    "busy background": lambda: Mistake(
        trained("busy-1.png", "busy-2.png", "busy-3.png"), _TRAIN, "has busy backgrounds (photo 1, 2, 3) and no mask"
    ),
}
