"""The template for the miniature world: learn and compose in one graph, described for `build_workflows`."""

from __future__ import annotations

import copy
from typing import Any

from miniworld.demo import OTHER, OWN, PREDICTOR
from miniworld.laboratory.recipe import ANCHOR_WORDS, GUIDANCE, INVERSION, PAINTING, TEMPLATES_WITH_CLASS
from miniworld.networks.checkpoint import CHECKPOINT_NAME
from miniworld.world.instances import INSTANCES
from miniworld.world.placing import SIDE

from .first_workflows import TRAIN, Node

NOTE = f"""## The miniature world: learn and compose in a few minutes, without a graphics card

1. In the folder of this pack run `python -m miniworld /path/to/ComfyUI`, with ComfyUI's Python. It puts the \
checkpoint `{CHECKPOINT_NAME}` and photos of twelve own things, with their masks, where ComfyUI finds them. Then \
press R here.
2. Press Run. The word `{OWN}` is learned from three photos; then {OWN} and a {OTHER} are painted into predicted boxes.

The model knows sixteen nouns: {ANCHOR_WORDS[0]}, {", ".join(ANCHOR_WORDS[1:15])} and {ANCHOR_WORDS[15]}. Try another \
own thing (`my-cup-1.png` …), another second noun, or `strength` 0 for no guidance.
"""


def _moved(node: Node, x: int, y: int, links: dict[str, tuple[str, int]], **widgets: Any) -> Node:
    kind, title, _, size, old, _ = node
    return kind, title, (x, y), size, {**old, **widgets}, links


def miniature_workflow() -> dict[str, Node]:
    """Return the template."""
    noun = INSTANCES[OWN].noun
    nodes = copy.deepcopy({key: TRAIN[key] for key in ("checkpoint", "photo1", "photo2", "photo3", "photos", "masks")})
    kept = copy.deepcopy({key: TRAIN[key] for key in ("train", "save", "loss", "negative", "decode", "images")})
    nodes["checkpoint"][4]["ckpt_name"] = CHECKPOINT_NAME
    for number in (1, 2, 3):
        nodes[f"photo{number}"][4]["image"] = f"{OWN}-{number}.png"
    model, clip, vae = ("checkpoint", 0), ("checkpoint", 1), ("checkpoint", 2)
    words = {"vocabulary": "none", "extra_words": ", ".join(ANCHOR_WORDS)}
    nodes |= {
        "note": ("MarkdownNote", "What this does", (-460, 0), (420, 440), {"": NOTE}, {}),
        "anchors": ("CompInvLoadAnchors", "", (360, 0), (270, 160), words, {"clip": clip}),
        "train": _moved(
            kept["train"],
            680,
            0,
            {
                "model": model,
                "clip": clip,
                "vae": vae,
                "images": ("photos", 0),
                "mask": ("masks", 0),
                "anchors": ("anchors", 0),
            },
            **INVERSION,
            name=OWN,
            superclass=noun,
            custom_templates="\n".join(TEMPLATES_WITH_CLASS),
        ),
        "save": _moved(kept["save"], 1080, 0, {"concept": ("train", 0)}),
        "loss": _moved(kept["loss"], 1080, 140, {"loss": ("train", 2)}),
        "phrase": (
            "StringConcatenate",
            "The learned word and its noun",
            (1400, 0),
            (320, 200),
            {"string_b": noun, "delimiter": " "},
            {"string_a": ("save", 0)},
        ),
        "prompt": (
            "StringConcatenate",
            "Prompt",
            (1400, 260),
            (320, 200),
            {"string_b": OTHER, "delimiter": " and a "},
            {"string_a": ("phrase", 0)},
        ),
        "phrases": (
            "StringConcatenate",
            "Phrases, one per line",
            (1400, 520),
            (320, 200),
            {"string_b": OTHER, "delimiter": "\n"},
            {"string_a": ("phrase", 0)},
        ),
        "predictor": ("CompInvLoadLayoutPredictor", "", (1400, 780), (320, 80), {"filename": PREDICTOR}, {}),
        "layout": (
            "CompInvPredictLayout",
            "",
            (1760, 0),
            (320, 240),
            {"width": SIDE, "height": SIDE},
            {"predictor": ("predictor", 0), "clip": clip, "phrases": ("phrases", 0)},
        ),
        "boxes": ("PreviewImage", "The predicted boxes", (1760, 520), (320, 320), {}, {"images": ("layout", 2)}),
        "guidance": (
            "CompInvApplyLayoutGuidance",
            "",
            (2120, 0),
            (360, 420),
            GUIDANCE,
            {"model": model, "clip": clip, "text": ("prompt", 0), "layout": ("layout", 0)},
        ),
        "negative": _moved(kept["negative"], 2120, 560, {"clip": clip}),
        "latent": (
            "EmptyLatentImage",
            "",
            (2120, 760),
            (360, 130),
            {"width": SIDE, "height": SIDE, "batch_size": 4},
            {},
        ),
        "sampler": (
            "KSampler",
            "",
            (2520, 0),
            (300, 280),
            {"seed": 1, "control_after_generate": "fixed", **PAINTING},
            {
                "model": ("guidance", 0),
                "positive": ("guidance", 1),
                "negative": ("negative", 0),
                "latent_image": ("latent", 0),
            },
        ),
        "decode": _moved(kept["decode"], 2520, 340, {"samples": ("sampler", 0), "vae": vae}),
        "images": _moved(kept["images"], 2860, 0, {"images": ("decode", 0)}, filename_prefix="compinv/miniature"),
    }
    return nodes
