"""The walk through a queued graph from a guiding node to the samplers, on graphs that were walked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from compinv_core.host.sampling.wiring import miswired

TYPES = {
    "Checkpoint": ("MODEL", "CLIP", "VAE"),
    "Apply": ("MODEL", "CONDITIONING"),
    "Encode": ("CONDITIONING",),
    "Lora": ("MODEL", "CLIP"),
    "Combine": ("CONDITIONING",),
    "ControlNet": ("CONDITIONING", "CONDITIONING"),
    "InstantID": ("MODEL", "CONDITIONING", "CONDITIONING"),
    "Reroute": ("*",),
    "Sampler": ("LATENT",),
    "Guider": ("GUIDER",),
}


def types(kind: str) -> Sequence[str]:
    return TYPES.get(kind, ())


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


GRAPH = {
    "ck": node("Checkpoint"),
    "gd": node("Apply", model=["ck", 0], clip=["ck", 1]),
    "other": node("Encode", clip=["ck", 1]),
    "lora": node("Lora", model=["gd", 0], clip=["ck", 1]),
    "and": node("Combine", conditioning_1=["gd", 1], conditioning_2=["other", 0]),
    "net": node("ControlNet", positive=["and", 0], negative=["other", 0]),
    "way": node("Reroute", value=["gd", 1]),
    "id": node("InstantID", model=["lora", 0], positive=["gd", 1], negative=["other", 0]),
}
BOTH = node("Sampler", model=["gd", 0], positive=["gd", 1], negative=["other", 0])
MODEL_ONLY = node("Sampler", model=["lora", 0], positive=["other", 0], negative=["gd", 1])
WORDS_ONLY = node("Sampler", model=["ck", 0], positive=["net", 0], negative=["net", 1])


@pytest.mark.parametrize(
    "sampler",
    [
        BOTH,
        node("Sampler", model=["lora", 0], positive=["net", 0], negative=["net", 1]),
        node("Sampler", model=["id", 0], positive=["id", 1], negative=["id", 2]),
        node("Sampler", model=["gd", 0], positive=["way", 0], negative=["other", 0]),
        node("Guider", model=["gd", 0], conditioning=["gd", 1]),
        node("Sampler", model=["ck", 0], positive=["other", 0], negative=["gd", 1]),
        # What comes from nodes that are not known may be anything.
        node("Sampler", model=["gd", 0], positive=["elsewhere", 0]),
        node("Lora", model=["gd", 0]),
    ],
)
def test_a_right_graph(sampler: dict[str, Any]) -> None:
    assert miswired({**GRAPH, "ks": sampler}, "gd", "Guide", types) == []


def test_the_model_without_its_words() -> None:
    (sentence,) = miswired({**GRAPH, "ks": MODEL_ONLY}, "gd", "Guide", types)
    assert "`model` goes to the node ks (Sampler) with another prompt" in sentence
    # A second pass may go on without them.
    assert miswired({**GRAPH, "ks": MODEL_ONLY, "first": BOTH}, "gd", "Guide", types) == []


def test_the_words_without_their_model() -> None:
    for graph in ({**GRAPH, "ks": WORDS_ONLY}, {**GRAPH, "ks": WORDS_ONLY, "first": BOTH}):
        (sentence,) = miswired(graph, "gd", "Guide", types)
        assert "`positive` goes to the node ks (Sampler) with another model" in sentence


def test_each_on_its_own_way() -> None:
    assert len(miswired({**GRAPH, "a": MODEL_ONLY, "b": WORDS_ONLY}, "gd", "Guide", types)) == 2


@pytest.mark.parametrize(("prompt", "node_id"), [(None, "gd"), ({}, "gd"), (GRAPH, None), (GRAPH, "5:3")])
def test_an_unknown_graph(prompt: Any, node_id: str | None) -> None:
    assert miswired(prompt, node_id, "Guide", types) == []
