"""The templates of one word and of composing for Stable Diffusion XL, made of those for Stable Diffusion 1.

What differs: the checkpoint, pictures of 1024 pixels, photos in sizes of their own, and a word of another name, since a
word of one kind of model is of no use to another.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

CHECKPOINT = "sd_xl_base_1.0.safetensors"
SIDE = 1024

Node = tuple[str, str, tuple[int, int], tuple[int, int], dict[str, Any], dict[str, tuple[str, int]]]

TRAIN_NOTE = """## Learn a concept from a few photos, with Stable Diffusion XL

1. Choose your **SDXL** base checkpoint or a fine-tune of it in *Load Checkpoint*; the refiner is not for training.
2. Load three to five photos of one thing. They may have any size and shape: large ones are scaled down to about \
1024 × 1024 pixels in their own proportions, and no head is cropped off.
3. Paint over the thing in each photo (right-click on the photo, *Open in MaskEditor*), so that the background is not \
learned. Paint all photos or none.
4. Give the concept a name and its class word (`superclass`), and press Run.

One photo a step and `gradient_checkpointing` fit a card of 12 GB. With more memory raise `batch_size` to 4 and switch \
`gradient_checkpointing` off.

The concept is saved in `models/embeddings` with vectors for both text encoders; write `embedding:my-cat-xl cat`. \
A word of Stable Diffusion 1 is of no use here, and this one of none there. Go on with *02-compose-with-boxes-sdxl*.
"""
COMPOSE_NOTE = """## Put a learned concept beside something else, with Stable Diffusion XL

1. Choose the same **SDXL** checkpoint as in *01-train-concept-sdxl*.
2. *Layout From Boxes*: write one phrase per line, and draw a box for each on the node.
3. *Apply Layout Guidance*: write the whole prompt. The chips show which of its tokens each phrase catches.

Sizes and crop for SDXL, or a text of its own for each text encoder, come from *CLIP Text Encode (SDXL)*: connect it \
to `conditioning`, and give `text` the text that holds the phrases.
"""
PREDICT_NOTE = """## Let the boxes be predicted, then move them, with Stable Diffusion XL

1. Choose the same **SDXL** checkpoint as in *01-train-concept-sdxl*.
2. Write the prompt, and below it the things in it, one phrase per line. Each phrase must stand in the prompt exactly \
as written.
3. Choose a predictor: train one for this checkpoint with *04-train-layout-predictor*; one of Stable Diffusion 1 does \
not fit. *side-by-side* is none, only equal boxes in a row.
4. Press Run. The predicted boxes appear on the canvas (shown in the editor's *Nodes 2.0* mode). Move them and run \
again: what you moved counts, until the prediction changes.
"""


def sdxl_workflows(workflows: Mapping[str, Mapping[str, Node]]) -> dict[str, dict[str, Node]]:
    """Return the templates for Stable Diffusion XL."""
    train, compose, predict = (
        _for_sdxl(workflows[name], note)
        for name, note in (
            ("01-train-concept", TRAIN_NOTE),
            ("02-compose-with-boxes", COMPOSE_NOTE),
            ("03-compose-with-predicted-layout", PREDICT_NOTE),
        )
    )
    return {
        "01-train-concept-sdxl": _with_photos_of_any_size(train),
        "02-compose-with-boxes-sdxl": compose,
        "03-compose-with-predicted-layout-sdxl": predict,
    }


def _for_sdxl(workflow: Mapping[str, Node], note: str) -> dict[str, Node]:
    nodes = {}
    for key, (kind, title, position, size, widgets, links) in copy.deepcopy(dict(workflow)).items():
        if key == "note":
            widgets = {"": note}
        if kind == "CheckpointLoaderSimple":
            widgets["ckpt_name"] = CHECKPOINT
        if kind == "KSampler":
            widgets |= {"cfg": 7.0, "steps": 30}
        if kind == "EmptyLatentImage":
            widgets["batch_size"] = 1
        factor = SIDE // widgets["width"] if "width" in widgets else 1
        for box in widgets.get("editor_state", ()):
            box |= {side: factor * box[side] for side in ("x", "y", "width", "height")}
        if "width" in widgets:
            widgets |= {"width": SIDE, "height": SIDE}
        if kind == "PrimitiveInt":
            widgets["value"] = SIDE
        for name, value in widgets.items():
            # The photos keep their names, and a note is written for the family already.
            if isinstance(value, str) and name not in ("image", ""):
                widgets[name] = value.replace("my-cat", "my-cat-xl")
        nodes[key] = (kind, title, position, size, widgets, links)
    return nodes


def _with_photos_of_any_size(nodes: dict[str, Node]) -> dict[str, Node]:
    """Hand the photos on as a list, one by one, and paint at a size of the model's."""
    for key in ("crop", "size", "mask image", "mask crop", "mask"):
        del nodes[key]
    photos = {f"inputs.input{number}": (f"photo{number + 1}", 0) for number in range(3)}
    nodes["photos"] = ("CreateList", "Photos of any size", (360, 540), (240, 110), {}, photos)
    masks = {f"inputs.input{number}": (f"photo{number + 1}", 1) for number in range(3)}
    nodes["masks"] = ("CreateList", "Their masks", (360, 700), (240, 110), {}, masks)
    kind, title, position, size, widgets, links = nodes["train"]
    learning = {**widgets, "batch_size": 1, "gradient_checkpointing": True}
    nodes["train"] = (kind, title, position, size, learning, {**links, "images": ("photos", 0), "mask": ("masks", 0)})
    kind, title, position, size, widgets, _ = nodes["latent"]
    nodes["latent"] = (kind, title, position, size, {**widgets, "width": SIDE, "height": SIDE}, {})
    return nodes
