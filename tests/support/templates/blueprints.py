"""The blueprints in subgraphs/, described for `build_workflows`: nodes of the templates behind one node's inputs.

Nodes outside are only there to be connected: their links become the blueprint's inputs and outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

from .first_workflows import SIDE, Node


@dataclass(frozen=True)
class Blueprint:
    """A graph, those of its nodes that stay outside, and the widgets that show, as (node, widget)."""

    description: str
    nodes: dict[str, Node]
    outside: tuple[str, ...]
    widgets: tuple[tuple[str, str], ...]


_MODELS = {"model": ("checkpoint", 0), "clip": ("checkpoint", 1), "vae": ("checkpoint", 2)}
_CHECKPOINT: Node = ("CheckpointLoaderSimple", "", (-700, 0), (320, 100), {}, {})

TEACH = Blueprint(
    "Learns a word for your own thing from a few photos, near ordinary nouns, so that it goes together with others.",
    {
        "checkpoint": _CHECKPOINT,
        "photos": ("LoadImage", "", (-700, 200), (320, 320), {}, {}),
        "anchors": ("CompInvLoadAnchors", "", (0, 0), (300, 160), {}, {"clip": ("checkpoint", 1)}),
        "train": (
            "CompInvTrainConcept",
            "",
            (360, 0),
            (360, 640),
            {"name": "my-cat", "superclass": "cat", "template": "object with class"},
            {**_MODELS, "images": ("photos", 0), "anchors": ("anchors", 0), "mask": ("photos", 1)},
        ),
        "save": ("CompInvSaveConcept", "", (780, 0), (280, 80), {}, {"concept": ("train", 0)}),
        "loss": ("LossGraphNode", "", (1500, 0), (280, 320), {}, {"loss": ("train", 2)}),
        "word": ("PreviewAny", "", (1500, 400), (280, 80), {}, {"source": ("save", 0)}),
    },
    ("checkpoint", "photos", "loss", "word"),
    (("train", "name"), ("train", "superclass"), ("train", "steps"), ("train", "radius"), ("train", "seed")),
)

COMPOSE = Blueprint(
    "Paints two things together, each in a box of its own: equal boxes in a row, or predicted ones.",
    {
        "checkpoint": _CHECKPOINT,
        "predictor": ("CompInvLoadLayoutPredictor", "", (0, 0), (320, 100), {}, {}),
        "layout": (
            "CompInvPredictLayout",
            "",
            (0, 180),
            (320, 300),
            {"phrases": "embedding:my-cat cat\na ball"},
            {
                "predictor": ("predictor", 0),
                "clip": ("checkpoint", 1),
                "width": ("size", 0),
                "height": ("size", 1),
            },
        ),
        "guidance": (
            "CompInvApplyLayoutGuidance",
            "",
            (380, 0),
            (400, 460),
            {"text": "embedding:my-cat cat and a ball"},
            {"model": ("checkpoint", 0), "clip": ("checkpoint", 1), "layout": ("layout", 0)},
        ),
        "negative": ("CLIPTextEncode", "Negative prompt", (380, 620), (400, 140), {}, {"clip": ("checkpoint", 1)}),
        # Width and height are typed once; the drawing of a layout has a size of its own.
        "canvas": ("EmptyImage", "Size of the pictures", (0, 1040), (320, 180), {"width": SIDE, "height": SIDE}, {}),
        "size": ("GetImageSize", "", (0, 620), (320, 120), {}, {"image": ("canvas", 0)}),
        "latent": (
            "EmptyLatentImage",
            "",
            (0, 820),
            (320, 160),
            {"batch_size": 4},
            {"width": ("size", 0), "height": ("size", 1)},
        ),
        "sampler": (
            "KSampler",
            "",
            (840, 0),
            (300, 320),
            {"seed": 1, "control_after_generate": "fixed", "steps": 50, "cfg": 7.5, "sampler_name": "euler"},
            {
                "model": ("guidance", 0),
                "positive": ("guidance", 1),
                "negative": ("negative", 0),
                "latent_image": ("latent", 0),
            },
        ),
        "decode": ("VAEDecode", "", (840, 420), (300, 60), {}, {"samples": ("sampler", 0), "vae": ("checkpoint", 2)}),
        "pictures": ("PreviewImage", "", (1500, 0), (300, 300), {}, {"images": ("decode", 0)}),
        "boxes": ("PreviewImage", "", (1500, 400), (300, 300), {}, {"images": ("layout", 2)}),
    },
    ("checkpoint", "pictures", "boxes"),
    (
        ("guidance", "text"),
        ("layout", "phrases"),
        ("predictor", "filename"),
        ("canvas", "width"),
        ("canvas", "height"),
        ("guidance", "strength"),
        ("sampler", "seed"),
        ("sampler", "steps"),
        ("sampler", "cfg"),
    ),
)

BLUEPRINTS = {"Teach a concept": TEACH, "Compose two concepts": COMPOSE}
