"""Damaged prompts in the server's queue: refused by the host, or answered in a sentence; and the server goes on."""

from __future__ import annotations

import random
import urllib.error

from support.attacks import mutations
from support.attacks.amounts import seeds
from support.attacks.watch import answer_of
from support.server import PACK_FOLDER, ComfyServer, PromptResult
from support.templates.graph import Prompt

BOX = {"x": 0, "y": 0, "width": 30, "height": 60, "label": "a cat"}


def node(kind: str, **inputs: object) -> dict:
    return {"class_type": kind, "inputs": inputs}


STOCK: Prompt = {
    "checkpoint": node("CheckpointLoaderSimple", ckpt_name="tiny.safetensors"),
    "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
    "sampled": node(
        "KSampler", model=["guide", 0], positive=["guide", 1], negative=["guide", 1], latent_image=["latent", 0],
        seed=1, steps=1, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0,
    ),
    "saved": node("SaveLatent", samples=["sampled", 0], filename_prefix="attacked"),
}  # fmt: skip
OURS: Prompt = {
    "predictor": node("CompInvLoadLayoutPredictor", filename="side-by-side"),
    "predict": node(
        "CompInvPredictLayout", predictor=["predictor", 0], clip=["checkpoint", 1], phrases="a cat\na ball", width=64,
        height=64,
    ),
    "anchors": node("CompInvLoadAnchors", clip=["checkpoint", 1], vocabulary="none", extra_words="cat, dog"),
    "layout": node("CompInvLayoutFromBoxes", bboxes={"__value__": [[BOX]]}, phrases="a cat", width=64, height=64),
    "guide": node(
        "CompInvApplyLayoutGuidance", model=["checkpoint", 0], clip=["checkpoint", 1], layout=["layout", 0],
        text="a cat and a ball", strength=30.0, threshold=0.2, max_iterations=1, guided_steps=1, loss="squared",
        blocks="middle and first up", preset="paper",
    ),
}  # fmt: skip


def queue(server: ComfyServer, prompt: Prompt) -> PromptResult | None:
    """Queue what may be no prompt at all; None where the host's own code fails at it before anything runs."""
    before = len(server.log)
    try:
        return server.run(prompt, timeout=600)
    except urllib.error.HTTPError as refusal:
        if refusal.code != 500 or f"custom_nodes/{PACK_FOLDER}" in server.log[before:]:
            raise
        return None


def sockets_are_linked(ours: object) -> bool:
    """Tell whether no value stands in a link's place: the host hands on what is written there, to its own nodes too."""
    nodes = ours.items() if isinstance(ours, dict) else ()
    return not any(
        isinstance(was, list) and not isinstance(each["inputs"].get(name, []), list)
        for key, each in nodes
        if isinstance(each, dict) and isinstance(each.get("inputs"), dict)
        for name, was in OURS.get(key, {"inputs": {}})["inputs"].items()
    )


def test_damaged_prompts_are_refused_or_answered_and_the_server_goes_on(server: ComfyServer) -> None:
    answered = 0
    for seed in seeds(25, 500):
        ours = mutations.changed(OURS, random.Random(seed))
        if not sockets_are_linked(ours):
            continue
        result = queue(server, {**STOCK, **ours} if isinstance(ours, dict) else ours)
        # What fails in the host's own nodes is not ours to say.
        if result is not None and result.error_node.startswith("CompInv"):
            assert result.error_type.endswith("UserError"), (seed, result)
            answer_of(result.error)
            answered += 1
    assert answered
    result = server.run({**STOCK, **OURS})
    assert result.ok, result
