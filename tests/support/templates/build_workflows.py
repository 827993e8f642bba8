"""Builds the templates in workflows/ from the descriptions below, with ComfyUI's own frontend.

The frontend, not this script, decides how a graph is written, so the files are what the editor would save; each gets
its picture beside it. Run it after a change of a node's inputs: `python tests/support/templates/build_workflows.py`,
with names of templates to build only those.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from PIL import Image
from playwright.sync_api import Page

from support import browser, locations
from support.server import ComfyServer
from support.templates.layout_workflows import LAYOUT_WORKFLOWS
from support.templates.sdxl_workflows import CHECKPOINT as SDXL_CHECKPOINT
from support.templates.sdxl_workflows import sdxl_workflows
from support.templates.tuning_workflows import TUNING_WORKFLOWS

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
SIDE = 512

# A node is (type, title, position, size, widgets, links); links name a node and its output.
Node = tuple[str, str, tuple[int, int], tuple[int, int], dict[str, Any], dict[str, tuple[str, int]]]

TRAIN_NOTE = f"""## Learn a concept from a few photos

1. Choose your **Stable Diffusion 1.5** checkpoint in *Load Checkpoint* (for the miniature world of `make demo`: \
`miniworld.safetensors`, and 128 × 128 in *Upscale Image*).
2. Load three to five photos of one thing. All are cropped to {SIDE} × {SIDE}.
3. Give the concept a name and its class word (`superclass`), and press Run.

*Load Anchors* is what makes this compositional inversion: disconnect it and you train plain textual inversion. \
Training 1,000 steps takes minutes on a GPU; it can be stopped at any time and goes on where it was.

The concept is saved in `models/embeddings`; use it anywhere as it was trained, with its class word behind: \
`embedding:my-cat cat`. The pictures on the right show it alone: go on with the template *02-compose-with-boxes*.
"""

TRAIN: dict[str, Node] = {
    "note": ("MarkdownNote", "What this does", (-460, 0), (420, 420), {"": TRAIN_NOTE}, {}),
    "checkpoint": ("CheckpointLoaderSimple", "", (0, 0), (320, 100), {"ckpt_name": CHECKPOINT}, {}),
    "photo1": ("LoadImage", "Photo 1", (0, 160), (320, 320), {"image": "my-cat-1.png"}, {}),
    "photo2": ("LoadImage", "Photo 2", (0, 540), (320, 320), {"image": "my-cat-2.png"}, {}),
    "photo3": ("LoadImage", "Photo 3", (0, 920), (320, 320), {"image": "my-cat-3.png"}, {}),
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

WORKFLOWS = {"01-train-concept": TRAIN, "02-compose-with-boxes": COMPOSE, **LAYOUT_WORKFLOWS, **TUNING_WORKFLOWS}
WORKFLOWS |= sdxl_workflows(WORKFLOWS)

BUILD = """async (nodes) => {
    await app.loadGraphData({version: 0.4, last_node_id: 0, last_link_id: 0, nodes: [], links: [], groups: []});
    const made = {};
    for (const [key, [type, title, pos, size, widgets]] of nodes) {
        const node = LiteGraph.createNode(type);
        if (!node) throw new Error(`no node ${type}`);
        app.graph.add(node);
        node.pos = pos;
        if (title) node.title = title;
        for (const [name, value] of Object.entries(widgets)) {
            const widget = name ? node.widgets.find((w) => w.name === name) : node.widgets[0];
            if (!widget) throw new Error(`${type} has no widget ${name}`);
            widget.value = value;
        }
        node.setSize(size);
        made[key] = node;
    }
    for (const [key, [type, , , , , links]] of nodes) {
        for (const [input, [source, output]] of Object.entries(links)) {
            const slot = made[key].inputs.findIndex((i) => i.name === input);
            if (slot < 0) throw new Error(`${type} has no input ${input}`);
            const link = made[source].connect(output, made[key], slot);
            if (!link) throw new Error(`${source} does not fit ${key}.${input}`);
        }
    }
    const graph = app.graph.serialize();
    delete graph.id;
    delete graph.extra.ds;
    return JSON.stringify(graph);
}"""


FRAME = """async () => {
    const boxes = app.graph.nodes.map((node) => node.getBounding());
    const left = Math.min(...boxes.map((b) => b[0])), top = Math.min(...boxes.map((b) => b[1]));
    const right = Math.max(...boxes.map((b) => b[0] + b[2])), bottom = Math.max(...boxes.map((b) => b[1] + b[3]));
    const margin = 20, room = [window.innerWidth - 160, window.innerHeight - 160];
    const size = [right - left + 2 * margin, bottom - top + 2 * margin];
    const scale = Math.min(room[0] / size[0], room[1] / size[1], 1);
    app.canvas.ds.scale = scale;
    app.canvas.ds.offset = [80 / scale - left + margin, 80 / scale - top + margin];
    app.canvas.setDirty(true, true);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    return { x: 80, y: 80, width: size[0] * scale, height: size[1] * scale };
}"""
THUMBNAIL_WIDTH = 1000


def write_thumbnail(page: Page, path: Path) -> None:
    """Write the open graph's picture, as the editor shows it, as JPEG."""
    # The editor leaves out all text when it is zoomed out far.
    page.set_viewport_size({"width": 4400, "height": 3000})
    shown = Image.open(io.BytesIO(page.screenshot(clip=page.evaluate(FRAME))))
    height = round(shown.height * THUMBNAIL_WIDTH / shown.width)
    shown.convert("RGB").resize((THUMBNAIL_WIDTH, height), Image.Resampling.LANCZOS).save(path, quality=85)


def main() -> None:
    """Rebuild the templates named on the command line, or all."""
    wanted = sys.argv[1:] or list(WORKFLOWS)
    with tempfile.TemporaryDirectory() as base:
        server = ComfyServer(Path(base))
        for thing in ("my-cat", "my-ball"):
            for number in (1, 2, 3):
                (server.base / "input" / f"{thing}-{number}.png").touch()
        for name in (CHECKPOINT, SDXL_CHECKPOINT):
            (server.base / "models" / "checkpoints" / name).touch()
        server.start()
        try:
            with browser.open_frontend(server.url) as page:
                for name in wanted:
                    graph = json.loads(page.evaluate(BUILD, list(WORKFLOWS[name].items())))
                    if len(graph["nodes"]) != len(WORKFLOWS[name]):
                        raise SystemExit(f"{name}: the editor's own first graph came in between; try again")
                    path = locations.REPOSITORY / "workflows" / f"{name}.json"
                    path.write_text(json.dumps(graph, indent=2, ensure_ascii=False) + "\n")
                    write_thumbnail(page, path.with_suffix(".jpg"))
                    print(f"{path.name}: {len(graph['nodes'])} nodes")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
