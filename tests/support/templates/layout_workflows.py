"""The templates of the predicted layout and of its training, described for `build_workflows`."""

from __future__ import annotations

from typing import Any

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
SIDE = 512

Node = tuple[str, str, tuple[int, int], tuple[int, int], dict[str, Any], dict[str, tuple[str, int]]]

PREDICT_NOTE = f"""## Let the boxes be predicted, then move them

1. Choose the same **Stable Diffusion 1.5** checkpoint as in *01-train-concept* (for the miniature world of `make \
demo`: `miniworld.safetensors`, and 128 × 128 in *Predict Layout* and on the canvas).
2. Write the prompt, and below it the things in it, one phrase per line. Each phrase must stand in the prompt exactly \
as written.
3. Choose a predictor: train one with *04-train-layout-predictor*. *side-by-side* is none, only equal boxes in a row.
4. Press Run. The predicted boxes appear on the canvas (shown in the editor's *Nodes 2.0* mode). Move them and run \
again: what you moved counts, until the prediction changes.

*Show Attention* draws where each phrase had its attention before and after guidance. *Predict Layout* and the canvas \
must have the same size ({SIDE} × {SIDE}).
"""

PREDICT: dict[str, Node] = {
    "note": ("MarkdownNote", "What this does", (-460, 0), (420, 440), {"": PREDICT_NOTE}, {}),
    "checkpoint": ("CheckpointLoaderSimple", "", (0, 0), (320, 100), {"ckpt_name": CHECKPOINT}, {}),
    "prompt": (
        "PrimitiveStringMultiline",
        "Prompt",
        (0, 160),
        (320, 120),
        {"value": "embedding:my-cat cat and a ball"},
        {},
    ),
    "phrases": (
        "PrimitiveStringMultiline",
        "Phrases, one per line",
        (0, 340),
        (320, 120),
        {"value": "embedding:my-cat cat\na ball"},
        {},
    ),
    "predictor": ("CompInvLoadLayoutPredictor", "", (0, 520), (320, 80), {}, {}),
    "predict": (
        "CompInvPredictLayout",
        "",
        (360, 0),
        (320, 240),
        {"width": SIDE, "height": SIDE},
        {"predictor": ("predictor", 0), "clip": ("checkpoint", 1), "phrases": ("phrases", 0)},
    ),
    "canvas": (
        "CreateBoundingBoxes",
        "Move the boxes here",
        (720, 0),
        (420, 620),
        {"width": SIDE, "height": SIDE},
        {"bboxes": ("predict", 1)},
    ),
    "size": ("GetImageSize", "", (1180, 260), (320, 120), {}, {"image": ("canvas", 0)}),
    "layout": (
        "CompInvLayoutFromBoxes",
        "",
        (1180, 0),
        (320, 200),
        {},
        {
            "bboxes": ("canvas", 1),
            "elements": ("canvas", 2),
            "phrases": ("phrases", 0),
            "width": ("size", 0),
            "height": ("size", 1),
        },
    ),
    "guidance": (
        "CompInvApplyLayoutGuidance",
        "",
        (1540, 0),
        (360, 620),
        {},
        {"model": ("checkpoint", 0), "clip": ("checkpoint", 1), "text": ("prompt", 0), "layout": ("layout", 0)},
    ),
    "record": (
        "CompInvRecordAttention",
        "",
        (1540, 720),
        (360, 340),
        {},
        {"model": ("guidance", 0), "clip": ("checkpoint", 1), "text": ("prompt", 0), "layout": ("layout", 0)},
    ),
    "negative": ("CLIPTextEncode", "Negative prompt", (1540, 1140), (360, 110), {}, {"clip": ("checkpoint", 1)}),
    "latent": (
        "EmptyLatentImage",
        "",
        (1180, 440),
        (320, 130),
        {"batch_size": 4},
        {"width": ("size", 0), "height": ("size", 1)},
    ),
    "sampler": (
        "KSampler",
        "",
        (1940, 0),
        (300, 280),
        {"seed": 1, "control_after_generate": "fixed", "steps": 50, "cfg": 7.5, "sampler_name": "euler"},
        {
            "model": ("record", 0),
            "positive": ("guidance", 1),
            "negative": ("negative", 0),
            "latent_image": ("latent", 0),
        },
    ),
    "decode": ("VAEDecode", "", (1940, 340), (300, 60), {}, {"samples": ("sampler", 0), "vae": ("checkpoint", 2)}),
    "images": (
        "SaveImage",
        "",
        (2280, 0),
        (420, 460),
        {"filename_prefix": "compinv/predicted"},
        {"images": ("decode", 0)},
    ),
    "show": (
        "CompInvShowAttention",
        "",
        (1940, 520),
        (300, 160),
        {},
        {"attention": ("record", 1), "samples": ("sampler", 0), "image": ("decode", 0)},
    ),
    "maps": ("PreviewImage", "Attention of each phrase", (2280, 520), (420, 360), {}, {"images": ("show", 0)}),
    "plot": ("PreviewImage", "Attention over the steps", (2740, 520), (420, 360), {}, {"images": ("show", 1)}),
}  # fmt: skip

TRAIN_NOTE = f"""## Teach a layout predictor where things stand

1. Choose the **Stable Diffusion 1.5** checkpoint that you compose with (for the miniature world of `make demo`: \
`miniworld.safetensors`, 128 × 128 pictures, and its nouns in *Load Anchors*).
2. Choose a detector that knows the nouns in *Load Detector*. `facebook/detr-resnet-50` is downloaded (170 MB) when it \
is first used. For the miniature world, choose `miniature world`.
3. Press Run. *Collect Layouts* paints 2,000 pictures of {SIDE} × {SIDE}: 100 pairs of nouns, 20 pictures each. Stop \
whenever you like; it goes on where it was. The data set is a folder in `output/compinv/layouts`.

*Train Layout Predictor* is short, and says how well it does on pairs that it has not seen, beside two simple guesses. \
The predictor is saved in `models/compinv/layout`; *03-compose-with-predicted-layout* uses it.
"""

TRAIN: dict[str, Node] = {
    "note": ("MarkdownNote", "What this does", (-460, 0), (420, 400), {"": TRAIN_NOTE}, {}),
    "checkpoint": ("CheckpointLoaderSimple", "", (0, 0), (320, 100), {"ckpt_name": CHECKPOINT}, {}),
    "anchors": ("CompInvLoadAnchors", "", (0, 160), (320, 110), {}, {"clip": ("checkpoint", 1)}),
    "detector": (
        "CompInvLoadDetector",
        "",
        (0, 330),
        (320, 140),
        {"backend": "detr", "model": "choose a detector"},
        {},
    ),
    "collect": (
        "CompInvCollectLayouts",
        "",
        (360, 0),
        (360, 480),
        {"dataset": "coco-pairs", "seed": 0},
        {
            "model": ("checkpoint", 0),
            "clip": ("checkpoint", 1),
            "vae": ("checkpoint", 2),
            "detector": ("detector", 0),
            "vocabulary": ("anchors", 0),
        },
    ),
    "train": (
        "CompInvTrainLayoutPredictor",
        "",
        (760, 0),
        (340, 240),
        {"seed": 0},
        {"clip": ("checkpoint", 1), "dataset": ("collect", 0)},
    ),
    "save": ("CompInvSaveLayoutPredictor", "", (1140, 0), (300, 80), {}, {"predictor": ("train", 0)}),
    "loss": ("LossGraphNode", "", (1140, 140), (300, 320), {}, {"loss": ("train", 1)}),
}  # fmt: skip

LAYOUT_WORKFLOWS = {"03-compose-with-predicted-layout": PREDICT, "04-train-layout-predictor": TRAIN}
