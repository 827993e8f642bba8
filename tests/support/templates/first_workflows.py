"""The templates of one word and of composing, described for `build_workflows`."""

from __future__ import annotations

import json
from typing import Any

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
SIDE = 512
# It is in the input folder of every new ComfyUI.
PHOTO = "example.png"

# A node is (type, title, position, size, widgets, links); links name a node and its output.
Node = tuple[str, str, tuple[int, int], tuple[int, int], dict[str, Any], dict[str, tuple[str, int]]]

TRAIN_NOTE = f"""## Learn a concept from a few photos

1. Choose your **Stable Diffusion 1.5** checkpoint in *Load Checkpoint* (for the miniature world of `make demo`: \
`miniworld.safetensors`, and 128 × 128 in *Upscale Image*).
2. Load three to five photos of one thing. All are cropped to {SIDE} × {SIDE}.
3. Paint over the thing in each photo (right-click on the photo, *Open in MaskEditor*), so that the background is not \
learned. Paint all photos or none.
4. Give the concept a name and its class word (`superclass`), and press Run.

*Load Anchors* is what makes this compositional inversion: disconnect it and you train plain textual inversion. \
Training 1,000 steps takes minutes on a GPU; it can be stopped at any time and goes on where it was.

The concept is saved in `models/embeddings`; use it anywhere as it was trained, with its class word behind: \
`embedding:my-cat cat`. The pictures on the right show it alone: go on with the template *02-compose-with-boxes*.
"""

TRAIN: dict[str, Node] = {
    "note": ("MarkdownNote", "What this does", (-460, 0), (420, 420), {"": TRAIN_NOTE}, {}),
    "checkpoint": ("CheckpointLoaderSimple", "", (0, 0), (320, 100), {"ckpt_name": CHECKPOINT}, {}),
    "photo1": ("LoadImage", "Photo 1", (0, 160), (320, 320), {"image": PHOTO}, {}),
    "photo2": ("LoadImage", "Photo 2", (0, 540), (320, 320), {"image": PHOTO}, {}),
    "photo3": ("LoadImage", "Photo 3", (0, 920), (320, 320), {"image": PHOTO}, {}),
    "photos": (
        "BatchImagesNode",
        "",
        (360, 540),
        (240, 110),
        {},
        {"images.image0": ("photo1", 0), "images.image1": ("photo2", 0), "images.image2": ("photo3", 0)},
    ),
    "crop": (
        "ImageScale",
        "Crop the photos to one size",
        (360, 700),
        (270, 130),
        {"upscale_method": "lanczos", "width": SIDE, "height": SIDE, "crop": "center"},
        {"image": ("photos", 0)},
    ),
    "masks": (
        "BatchMasksNode",
        "",
        (360, 900),
        (240, 110),
        {},
        {"masks.mask0": ("photo1", 1), "masks.mask1": ("photo2", 1), "masks.mask2": ("photo3", 1)},
    ),
    "mask image": ("MaskToImage", "", (360, 1060), (240, 60), {}, {"mask": ("masks", 0)}),
    "mask crop": (
        "ImageScale",
        "Crop the masks like the photos",
        (360, 1160),
        (270, 130),
        {"upscale_method": "bilinear", "width": SIDE, "height": SIDE, "crop": "center"},
        {"image": ("mask image", 0)},
    ),
    "mask": ("ImageToMask", "", (360, 1330), (240, 80), {"channel": "red"}, {"image": ("mask crop", 0)}),
    "anchors": ("CompInvLoadAnchors", "", (360, 0), (270, 110), {}, {"clip": ("checkpoint", 1)}),
    "train": (
        "CompInvTrainConcept",
        "",
        (680, 0),
        (360, 640),
        {
            "name": "my-cat",
            "superclass": "cat",
            "template": "object with class",
            "preview_prompt": "a photo of {} {class}",
        },
        {
            "model": ("checkpoint", 0),
            "clip": ("checkpoint", 1),
            "vae": ("checkpoint", 2),
            "images": ("crop", 0),
            "anchors": ("anchors", 0),
            "mask": ("mask", 0),
        },
    ),
    "save": ("CompInvSaveConcept", "", (1080, 0), (280, 80), {}, {"concept": ("train", 0)}),
    "loss": ("LossGraphNode", "", (1080, 140), (280, 320), {}, {"loss": ("train", 2)}),
    "positive": (
        "CLIPTextEncode",
        "",
        (1400, 260),
        (300, 110),
        {},
        {"clip": ("checkpoint", 1), "text": ("save", 1)},
    ),
    "negative": ("CLIPTextEncode", "Negative prompt", (1400, 430), (300, 110), {}, {"clip": ("checkpoint", 1)}),
    "size": ("GetImageSize", "", (1080, 700), (280, 120), {}, {"image": ("crop", 0)}),
    "latent": (
        "EmptyLatentImage",
        "",
        (1400, 600),
        (300, 130),
        {"batch_size": 4},
        {"width": ("size", 0), "height": ("size", 1)},
    ),
    "sampler": (
        "KSampler",
        "",
        (1740, 0),
        (300, 280),
        {"seed": 1, "control_after_generate": "fixed", "steps": 30, "cfg": 7.5, "sampler_name": "euler"},
        {
            "model": ("checkpoint", 0),
            "positive": ("positive", 0),
            "negative": ("negative", 0),
            "latent_image": ("latent", 0),
        },
    ),
    "decode": ("VAEDecode", "", (1740, 340), (300, 60), {}, {"samples": ("sampler", 0), "vae": ("checkpoint", 2)}),
    "images": (
        "SaveImage",
        "",
        (2080, 0),
        (420, 460),
        {"filename_prefix": "compinv/concept"},
        {"images": ("decode", 0)},
    ),
}  # fmt: skip

COMPOSE_NOTE = """## Put a learned concept beside something else

1. Choose the same **Stable Diffusion 1.5** checkpoint as in *01-train-concept* (for the miniature world of `make \
demo`: `miniworld.safetensors`, and 128 × 128 in *Width* and *Height*).
2. *Layout From Boxes*: write one phrase per line, and draw a box for each on the node.
3. *Apply Layout Guidance*: write the whole prompt. The chips show which of its tokens each phrase catches.

`embedding:my-cat` is the word learned in *01-train-concept*. With `strength` 0 you get exactly \
the pictures of the unguided model.
"""

COMPOSE: dict[str, Node] = {
    "note": ("MarkdownNote", "What this does", (-460, 0), (420, 360), {"": COMPOSE_NOTE}, {}),
    "checkpoint": ("CheckpointLoaderSimple", "", (0, 0), (320, 100), {"ckpt_name": CHECKPOINT}, {}),
    "width": ("PrimitiveInt", "Width", (0, 160), (320, 90), {"value": SIDE}, {}),
    "height": ("PrimitiveInt", "Height", (0, 310), (320, 90), {"value": SIDE}, {}),
    "layout": (
        "CompInvLayoutFromBoxes",
        "",
        (360, 160),
        (440, 560),
        {
            "phrases": "embedding:my-cat cat\na ball",
            "width": SIDE,
            "height": SIDE,
            "boxes": json.dumps(
                [
                    {"phrase": "embedding:my-cat cat", "x0": 0.03, "y0": 0.28, "x1": 0.47, "y1": 0.88},
                    {"phrase": "a ball", "x0": 0.53, "y0": 0.38, "x1": 0.97, "y1": 0.88},
                ]
            ),
        },
        {"width": ("width", 0), "height": ("height", 0)},
    ),
    "guidance": (
        "CompInvApplyLayoutGuidance",
        "",
        (840, 0),
        (400, 620),
        {"text": "embedding:my-cat cat and a ball"},
        {"model": ("checkpoint", 0), "clip": ("checkpoint", 1), "layout": ("layout", 0)},
    ),
    "negative": ("CLIPTextEncode", "Negative prompt", (840, 700), (400, 110), {}, {"clip": ("checkpoint", 1)}),
    "latent": (
        "EmptyLatentImage",
        "",
        (840, 870),
        (400, 130),
        {"batch_size": 4},
        {"width": ("width", 0), "height": ("height", 0)},
    ),
    "sampler": (
        "KSampler",
        "",
        (1280, 0),
        (300, 280),
        {"seed": 1, "control_after_generate": "fixed", "steps": 50, "cfg": 7.5, "sampler_name": "euler"},
        {
            "model": ("guidance", 0),
            "positive": ("guidance", 1),
            "negative": ("negative", 0),
            "latent_image": ("latent", 0),
        },
    ),
    "decode": ("VAEDecode", "", (1280, 340), (300, 60), {}, {"samples": ("sampler", 0), "vae": ("checkpoint", 2)}),
    "images": (
        "SaveImage",
        "",
        (1620, 0),
        (420, 460),
        {"filename_prefix": "compinv/composed"},
        {"images": ("decode", 0)},
    ),
}  # fmt: skip

FIRST_WORKFLOWS = {"01-train-concept": TRAIN, "02-compose-with-boxes": COMPOSE}
