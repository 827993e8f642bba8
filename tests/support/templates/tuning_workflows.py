"""The templates of Custom Diffusion, DreamBooth and two concepts at once, described for `build_workflows`."""

from __future__ import annotations

from typing import Any

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
SIDE = 512
PHOTOS = 3
PHOTO = "example.png"

# Every template learns words of its own: a word of one method is of no use to another, whose file it would replace.

Node = tuple[str, str, tuple[int, int], tuple[int, int], dict[str, Any], dict[str, tuple[str, int]]]

CUSTOM_NOTE = f"""## Custom Diffusion: a word and a small part of the model

1. Choose your **Stable Diffusion 1.5** checkpoint in *Load Checkpoint* (for the miniature world of `make demo`: \
`miniworld.safetensors`, and 128 × 128 in *Upscale Image*).
2. Load three to five photos of one thing. All are cropped to {SIDE} × {SIDE}.
3. Give the concept a name and its class word (`superclass`), and press Run. First the model makes 200 pictures of the \
class, then it trains 500 steps; both can be stopped at any time and go on where they were.

The word is saved in `models/embeddings`, the trained part of the model in `models/loras`: in other graphs use *Load \
LoRA* with strength 1 and write `embedding:my-cat-cd cat`. Disconnect *Load Anchors* for plain Custom Diffusion.
"""

DREAMBOOTH_NOTE = f"""## DreamBooth: a word and the whole model

1. Choose your **Stable Diffusion 1.5** checkpoint in *Load Checkpoint* (for the miniature world of `make demo`: \
`miniworld.safetensors`, and 128 × 128 in *Upscale Image*).
2. Load three to five photos of one thing. All are cropped to {SIDE} × {SIDE}.
3. Give the concept a name and its class word (`superclass`), and press Run. First the model makes 200 pictures of the \
class, then it trains 800 steps; both can be stopped at any time and go on where they were.

Needs about 14 GB beside the model; half of that with the advanced input `optimizer` at *adafactor*. *Save Checkpoint* \
writes the trained model into `output/checkpoints`; move it to `models/checkpoints` to use it in other graphs, with \
`embedding:my-cat-db cat` in the prompt.
"""

TWO_NOTE = f"""## Two things of your own, learned together

1. Choose your **Stable Diffusion 1.5** checkpoint in *Load Checkpoint*.
2. Load photos of both things. All are cropped to {SIDE} × {SIDE}. *Train Custom Diffusion* holds the words of the \
first, *Concept Images* those of the second; chain more of them for more concepts.
3. Draw one box for each thing on the canvas (shown in the editor's *Nodes 2.0* mode), in the order of the phrases in \
*Layout From Boxes*.

*Apply Layout Guidance* acts on the trained model like on any other. Things that were learned one by one go together \
as well: load both LoRA files and write both words.
"""


def _photos(name: str, top: int) -> dict[str, Node]:
    """Photos of one thing, joined and cropped."""
    loads: dict[str, Node] = {
        f"{name}{number}": (
            "LoadImage",
            f"Photo {number} of {name}",
            (0, top + 380 * (number - 1)),
            (320, 320),
            {"image": PHOTO},
            {},
        )
        for number in range(1, PHOTOS + 1)
    }
    links = {f"images.image{index}": (f"{name}{index + 1}", 0) for index in range(PHOTOS)}
    return {
        **loads,
        f"{name} photos": ("BatchImagesNode", "", (360, top + 380), (240, 110), {}, links),
        f"{name} crop": (
            "ImageScale",
            "Crop the photos to one size",
            (360, top + 540),
            (270, 130),
            {"upscale_method": "lanczos", "width": SIDE, "height": SIDE, "crop": "center"},
            {"image": (f"{name} photos", 0)},
        ),
    }


def _training(kind: str, name: str, superclass: str, links: dict[str, tuple[str, int]]) -> Node:
    models = {"model": ("checkpoint", 0), "clip": ("checkpoint", 1), "vae": ("checkpoint", 2)}
    return (
        kind,
        "",
        (680, 0),
        (360, 760),
        {"name": name, "superclass": superclass},
        {**models, "images": ("my-cat crop", 0), "anchors": ("anchors", 0), **links},
    )


def _pictures(left: int, model: str, positive: str, prefix: str) -> dict[str, Node]:
    """Sample with the trained model, show and save."""
    return {
        "negative": ("CLIPTextEncode", "Negative prompt", (left, 430), (300, 110), {}, {"clip": ("checkpoint", 1)}),
        "size": ("GetImageSize", "", (left, 600), (300, 120), {}, {"image": ("my-cat crop", 0)}),
        "latent": (
            "EmptyLatentImage",
            "",
            (left, 780),
            (300, 130),
            {"batch_size": 4},
            {"width": ("size", 0), "height": ("size", 1)},
        ),
        "sampler": (
            "KSampler",
            "",
            (left + 340, 0),
            (300, 280),
            {"seed": 1, "control_after_generate": "fixed", "steps": 50, "cfg": 7.5, "sampler_name": "euler"},
            {
                "model": (model, 0),
                "positive": (positive, 1 if positive == "guidance" else 0),
                "negative": ("negative", 0),
                "latent_image": ("latent", 0),
            },
        ),
        "decode": (
            "VAEDecode",
            "",
            (left + 340, 340),
            (300, 60),
            {},
            {"samples": ("sampler", 0), "vae": ("checkpoint", 2)},
        ),
        "images": (
            "SaveImage",
            "",
            (left + 680, 0),
            (420, 460),
            {"filename_prefix": f"compinv/{prefix}"},
            {"images": ("decode", 0)},
        ),
    }


def _single(kind: str, name: str, note: str, prefix: str) -> dict[str, Node]:
    """One concept, learned by a method, and composed with another noun."""
    return {
        "note": ("MarkdownNote", "What this does", (-460, 0), (420, 440), {"": note}, {}),
        "checkpoint": ("CheckpointLoaderSimple", "", (0, 0), (320, 100), {"ckpt_name": CHECKPOINT}, {}),
        **_photos("my-cat", 160),
        "anchors": ("CompInvLoadAnchors", "", (360, 0), (270, 110), {}, {"clip": ("checkpoint", 1)}),
        "train": _training(kind, name, "cat", {}),
        "loss": ("LossGraphNode", "", (1080, 0), (280, 320), {}, {"loss": ("train", 2)}),
        "prompt": (
            "StringConcatenate",
            "Prompt with the learned word",
            (1400, 0),
            (300, 200),
            {"string_b": "and a ball", "delimiter": " "},
            {"string_a": ("train", 4)},
        ),
        "positive": (
            "CLIPTextEncode",
            "",
            (1400, 260),
            (300, 110),
            {},
            {"clip": ("checkpoint", 1), "text": ("prompt", 0)},
        ),
        **_pictures(1400, "train", "positive", prefix),
    }


CUSTOM_DIFFUSION = _single("CompInvTrainCustomDiffusion", "my-cat-cd", CUSTOM_NOTE, "custom-diffusion")

DREAMBOOTH = {
    **_single("CompInvTrainDreamBooth", "my-cat-db", DREAMBOOTH_NOTE, "dreambooth"),
    "checkpoint file": (
        "CheckpointSave",
        "",
        (1080, 380),
        (280, 120),
        {"filename_prefix": "checkpoints/my-cat-db"},
        {"model": ("train", 0), "clip": ("checkpoint", 1), "vae": ("checkpoint", 2)},
    ),
}

TWO_CONCEPTS: dict[str, Node] = {
    "note": ("MarkdownNote", "What this does", (-460, 0), (420, 400), {"": TWO_NOTE}, {}),
    "checkpoint": ("CheckpointLoaderSimple", "", (0, 0), (320, 100), {"ckpt_name": CHECKPOINT}, {}),
    **_photos("my-cat", 160),
    **_photos("my-ball", 1300),
    "anchors": ("CompInvLoadAnchors", "", (360, 0), (270, 110), {}, {"clip": ("checkpoint", 1)}),
    "second": (
        "CompInvConceptImages",
        "The second thing",
        (680, 1300),
        (360, 240),
        {"name": "my-ball-joint", "superclass": "ball"},
        {"images": ("my-ball crop", 0)},
    ),
    "train": _training("CompInvTrainCustomDiffusion", "my-cat-joint", "cat", {"more_concepts": ("second", 0)}),
    "loss": ("LossGraphNode", "", (1080, 960), (280, 320), {}, {"loss": ("train", 2)}),
    "canvas": (
        "CreateBoundingBoxes",
        "",
        (1080, 0),
        (420, 620),
        {
            "width": SIDE,
            "height": SIDE,
            "editor_state": [
                {"x": 16, "y": 144, "width": 224, "height": 304, "metadata": {"type": "obj", "desc": "my cat"}},
                {"x": 272, "y": 192, "width": 224, "height": 256, "metadata": {"type": "obj", "desc": "my ball"}},
            ],
        },
        {},
    ),
    "phrases": (
        "StringReplace",
        "A phrase a line",
        (1540, 720),
        (400, 200),
        {"find": " and ", "replace": "\n"},
        {"string": ("train", 4)},
    ),
    "layout": (
        "CompInvLayoutFromBoxes",
        "",
        (1080, 680),
        (420, 200),
        {},
        {
            "bboxes": ("canvas", 1),
            "phrases": ("phrases", 0),
            "width": ("size", 0),
            "height": ("size", 1),
        },
    ),
    "guidance": (
        "CompInvApplyLayoutGuidance",
        "",
        (1540, 0),
        (400, 620),
        {},
        {"model": ("train", 0), "clip": ("checkpoint", 1), "text": ("train", 4), "layout": ("layout", 0)},
    ),
    **_pictures(1980, "guidance", "guidance", "two-concepts"),
}

TUNING_WORKFLOWS = {
    "05-custom-diffusion": CUSTOM_DIFFUSION,
    "06-dreambooth": DREAMBOOTH,
    "07-two-concepts": TWO_CONCEPTS,
}
