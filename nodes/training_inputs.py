"""Inputs that the training nodes share, and how settings are read from them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from comfy_api.latest import io

from ..compinv_core.anchors import REDUCTIONS
from ..compinv_core.inversion_config import PRESETS, InversionConfig
from ..compinv_core.sparse_coding import CODERS
from ..compinv_core.words.sentences import TEMPLATES
from .sockets import Anchors

_Config = TypeVar("_Config", bound=InversionConfig)


def read_config(kind: type[_Config], widgets: dict[str, list[Any]]) -> _Config:
    """Return a method's settings from the widgets of a list node, whose values come in lists of one."""
    known = {field.name for field in fields(kind)}
    settings = {name: values[0] for name, values in widgets.items() if name in known}
    sentences = (line.strip() for line in widgets.get("custom_templates", [""])[0].splitlines())
    return kind(**settings, templates=tuple(line for line in sentences if line))


def sockets() -> list:
    """Return the models, photos and anchors."""
    return [
        io.Model.Input("model", tooltip="Stable Diffusion 1 checkpoint; it is not changed."),
        io.Clip.Input("clip", tooltip="Text encoder of the same checkpoint; it is not changed."),
        io.Vae.Input("vae", tooltip="Autoencoder of the same checkpoint. Photos are encoded once, without noise."),
        *image_inputs()[:1],
        Anchors.Input(
            "anchors",
            optional=True,
            tooltip="Nouns to stay close to, from Load Anchors (the paper: the 80 COCO nouns). Not connected: the "
            "plain method, without semantic inversion.",
        ),
        *image_inputs()[1:],
    ]


def image_inputs() -> list:
    """Return the photos and masks of a concept."""
    return [
        io.Image.Input(
            "images",
            tooltip="Photos of the concept, three to five, all of one size (the paper: 512x512). Sides that are no "
            "multiple of 8 pixels are cropped at the centre.",
        ),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="One mask per photo, of the same size, white (1) where the concept is. The background then hardly "
            "enters the word.",
        ),
    ]


def concept_inputs() -> list:
    """Return the words of a concept."""
    return [
        io.String.Input(
            "name",
            default="my-thing",
            tooltip="Name of the concept and of its embedding file: letters, digits, - and _. Another training of this "
            "name replaces the file.",
        ),
        io.String.Input(
            "superclass",
            default="",
            tooltip="The ordinary English noun for the concept, such as cat. It is the first anchor and never leaves.",
        ),
        io.String.Input(
            "init_word",
            default="",
            tooltip="Word to start from. Empty takes the superclass, as the paper does.",
        ),
        io.Int.Input(
            "num_vectors",
            default=1,
            min=1,
            max=75,
            tooltip="Token vectors to learn, 1 to 75; all are trained. More vectors hold more detail and take more "
            "room in the prompt. The paper: 1.",
        ),
    ]


def training_inputs(
    steps: int = 1000,
    batch_size: int = 4,
    learning_rate: float = 0.005,
    anchor_weight: float = 0.95,
    paper: str = "5000 at batch 8",
    paper_batch: int = 8,
    paper_rate: str = "The paper: 0.005 x batch 8 = 0.04",
    template: str = InversionConfig.template,
) -> list:
    """Return the settings of the training and its anchors, with the method's defaults and the paper's values."""
    return [
        io.Int.Input("steps", default=steps, min=1, max=100_000, tooltip=f"Steps, 1 to 100000. The paper: {paper}."),
        io.Int.Input(
            "batch_size",
            default=batch_size,
            min=1,
            max=64,
            tooltip=f"Noised photos per step, 1 to 64, drawn with repetition. The paper: {paper_batch}. Lower it when "
            "memory runs out.",
        ),
        io.Float.Input(
            "learning_rate",
            default=learning_rate,
            min=0.0000001,
            max=1.0,
            step=learning_rate / 50,
            round=False,
            tooltip=f"Effective rate of the optimiser, up to 1; nothing multiplies it. {paper_rate}.",
        ),
        io.Float.Input(
            "anchor_weight",
            default=anchor_weight,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Lambda: share of the anchor loss, 0 to 1, the rest is the reconstruction. The paper: "
            f"{anchor_weight} (with anchor_reduction seq_mean). No effect without anchors.",
        ),
        io.Int.Input(
            "max_active_anchors",
            default=4,
            min=1,
            max=32,
            tooltip="Most anchors in use at a time, 1 to 32, superclass included (c - 1 of the paper). 1 leaves the "
            "superclass.",
        ),
        io.Int.Input(
            "recode_every",
            default=100,
            min=0,
            max=100_000,
            tooltip="Steps between two choices of anchors, up to 100000. 0 keeps the superclass as the only one.",
        ),
        io.Combo.Input(
            "sparse_coder",
            options=list(CODERS),
            default=CODERS[0],
            advanced=True,
            tooltip="How anchors are chosen: non-negative orthogonal matching pursuit, or scikit-learn's positive "
            "lasso by least angles or coordinate descent.",
        ),
        io.Combo.Input(
            "anchor_reduction",
            options=list(REDUCTIONS),
            default=REDUCTIONS[0],
            advanced=True,
            tooltip="What the squared distance is divided by: seq_mean 77 x 768 (the authors' code; the paper's 0.95 "
            "refers to it), dim_mean 768, sum 1. The log gives the equal anchor_weight for the others.",
        ),
        io.Combo.Input(
            "template",
            options=list(TEMPLATES),
            default=template,
            tooltip="Sentences around the word in training: for a thing, for a style, or for a thing with its class "
            "noun behind the word. Prompt it as it was trained: embedding:my-cat, or embedding:my-cat cat.",
        ),
    ]


def run_inputs(save_every: int = 100, preview_prompt: str = InversionConfig.preview_prompt) -> list:
    """Return previews, saving, seed and what is rarely changed."""
    return [
        io.Int.Input(
            "preview_every",
            default=0,
            min=0,
            max=100_000,
            tooltip="Steps between preview pictures of 12 sampling steps, up to 100000; 0 for none. The result is the "
            "same.",
        ),
        io.String.Input(
            "preview_prompt",
            default=preview_prompt,
            advanced=True,
            tooltip="Prompt of the preview, with {} in the place of the learned word and {class} in that of the "
            "superclass.",
        ),
        io.Int.Input(
            "save_every",
            default=save_every,
            min=0,
            max=100_000,
            advanced=True,
            tooltip="Steps between saves of the training state in output/compinv/runs, up to 100000. It is saved on "
            "stopping in any case; 0 saves only then and at the end.",
        ),
        io.Boolean.Input(
            "resume",
            default=True,
            tooltip="Continue a stopped training of the same name and inputs; on the same machine, bit for bit. Off "
            "begins anew and keeps the old state as previous.safetensors.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=io.ControlAfterGenerate.fixed,
            tooltip="Seed of the training's random numbers, up to 2^64 - 1.",
        ),
        io.Combo.Input(
            "preset",
            options=list(PRESETS),
            default=PRESETS[0],
            optional=True,
            advanced=True,
            tooltip="official_2024 repeats the authors' released code for comparison: the superclass is the only "
            "anchor for good, the mask has no effect, only the first of several vectors is trained.",
        ),
        io.String.Input(
            "custom_templates",
            default="",
            multiline=True,
            optional=True,
            advanced=True,
            tooltip="Sentences of your own instead of the template's, one per line, each with {} in the place of the "
            "learned word; {class} stands for the superclass. Empty takes the template.",
        ),
    ]
