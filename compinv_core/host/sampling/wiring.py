"""Mistakes that only the graph shows: a sampler that gets the model without the conditioning that belongs to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

Prompt = Mapping[str, Mapping[str, Any]]
"""A queued graph in API form: by id, ``class_type`` and ``inputs``, whose links are ``[id, number of the output]``."""

OutputTypes = Callable[[str], Sequence[str]]
"""Types of the outputs of a ``class_type``."""

Output = tuple[str, int]

_MODEL, _CONDITIONING = "MODEL", "CONDITIONING"
# What a reroute, a switch or a loop hands on may be anything.
_ANYTHING = "*"


def registered_types(class_type: str) -> Sequence[str]:
    """Return the types of the outputs of one of the host's nodes; none for one that it does not know."""
    # The host's module has the name of our package.
    known = import_module("nodes").NODE_CLASS_MAPPINGS.get(class_type)
    return getattr(known, "RETURN_TYPES", None) or ()


def miswired(
    prompt: Prompt | None, node_id: str | None, node_name: str, types: OutputTypes = registered_types
) -> list[str]:
    """Say where a guiding node's model (output 0) and conditioning (output 1) part.

    Either may go through other nodes that give out the same type: what has a hand in an output counts as kept in it.

    Parameters
    ----------
    prompt : Prompt or None
        None, or a graph without the node, says nothing.
    node_name : str
        Opens the sentences.
    types : callable, optional
        The host's nodes, unless said otherwise.

    Returns
    -------
    list of str
        For each node that samples with the conditioning, but another model. For each one with the model, but other
        conditioning, unless some node has both: a second pass may well go on unguided.
    """
    if not prompt or node_id is None or node_id not in prompt:
        return []
    with_model = _made_of(prompt, (node_id, 0), _MODEL, types)
    with_words = _made_of(prompt, (node_id, 1), _CONDITIONING, types)
    alone, unguided, guided = [], [], False
    for other, node in prompt.items():
        links = dict(_links(node))
        model = links.get("model")
        drawn_towards = {source for name, source in links.items() if not name.startswith("negative")}
        called = f"the node {other} ({node.get('class_type')})"
        # A node that hands the model on is no sampler.
        if model is None or _MODEL in types(str(node.get("class_type"))):
            continue
        if drawn_towards & with_words:
            guided = guided or model in with_model
            if model not in with_model:
                alone.append(
                    f"{node_name}: its `positive` goes to {called} with another model, so nothing is guided there; "
                    "connect its `model`, too."
                )
        elif model in with_model and any(_type_of(prompt, source, types) == _CONDITIONING for source in drawn_towards):
            unguided.append(
                f"{node_name}: its `model` goes to {called} with another prompt, so nothing is guided there; connect "
                "its `positive`, too, and let no other node take its place on the way."
            )
    return alone if guided else alone + unguided


def _made_of(prompt: Prompt, start: Output, kind: str, types: OutputTypes) -> set[Output]:
    """Return an output, and those of its type that are made of it, directly or through others of the type."""
    found, waiting = {start}, [start]
    while waiting:
        source = waiting.pop()
        for other, node in prompt.items():
            if source in dict(_links(node)).values():
                outputs = enumerate(types(str(node.get("class_type"))))
                fresh = {(other, index) for index, each in outputs if each in (kind, _ANYTHING)} - found
                found |= fresh
                waiting += fresh
    return found


def _type_of(prompt: Prompt, source: Output, types: OutputTypes) -> str:
    outputs = types(str(prompt.get(source[0], {}).get("class_type")))
    return outputs[source[1]] if 0 <= source[1] < len(outputs) else ""


def _links(node: Mapping[str, Any]) -> Iterator[tuple[str, Output]]:
    for name, value in (node.get("inputs") or {}).items():
        if isinstance(value, list) and len(value) == 2 and isinstance(value[1], int):
            yield name, (str(value[0]), value[1])
