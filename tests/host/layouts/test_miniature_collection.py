"""The training template on the miniature world: a detector that comes along finds what its model paints."""

from __future__ import annotations

import json

from miniworld.networks.checkpoint import assemble
from miniworld.world.scenes import SIDE
from support.locations import REPOSITORY
from support.server import ComfyServer
from support.templates import graph


def test_layouts_are_collected_with_a_detector_that_comes_along(server: ComfyServer) -> None:
    assemble(server.base / "models" / "checkpoints" / "miniworld.safetensors")
    workflow = json.loads((REPOSITORY / "workflows" / "04-train-layout-predictor.json").read_text())
    template = graph.to_prompt(workflow, server.get("/object_info"))
    # As it is delivered, it asks for a choice before it paints anything.
    assert "choose one in `model`" in server.run(template).error
    prompt = graph.changed(
        template,
        CheckpointLoaderSimple={"ckpt_name": "miniworld.safetensors"},
        CompInvLoadAnchors={"vocabulary": "none", "extra_words": "boat, cat, moon"},
        CompInvLoadDetector={"backend": "detr", "model": "miniature world", "threshold": 0.5},
        CompInvCollectLayouts={
            "dataset": "miniature", "pairs": 3, "images_per_pair": 2, "steps": 12, "width": SIDE, "height": SIDE
        },
        CompInvTrainLayoutPredictor={"epochs": 2},
    )  # fmt: skip
    result = server.run(prompt)
    assert result.ok, result

    folder = server.base / "output" / "compinv" / "layouts" / "miniature"
    annotations = json.loads((folder / "annotations.json").read_text())
    nouns = {category["id"]: category["name"] for category in annotations["categories"]}
    found: dict[int, set[str]] = {}
    for annotation in annotations["annotations"]:
        found.setdefault(annotation["image_id"], set()).add(nouns[annotation["category_id"]])
    assert set().union(*found.values()) == {"boat", "cat", "moon"}
    # Of pictures with both nouns, half of the six or more, the predictor learns.
    assert sum(len(names) == 2 for names in found.values()) >= 3, found
