"""Mistakes that only the graph shows: a conditioning that goes to a sampler without the model that belongs to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from ... import logger

Prompt = Mapping[str, Mapping[str, Any]]
"""A queued graph in API form: by id, ``class_type`` and ``inputs``, whose links are ``[id, number of the output]``."""

_MODEL, _CONDITIONING = "MODEL", "CONDITIONING"


def warn_of_other_models(prompt: Prompt | None, node_id: str | None, node_name: str) -> None:
    """Warn where a node's conditioning (output 1) is sampled with a model that does not come from its model (output 0).

    Parameters
    ----------
    prompt : Prompt or None
        None, or a graph without the node, says nothing.
    node_name : str
        Opens the sentence.
    """
    if not prompt or node_id is None or node_id not in prompt:
        return
    with_model = {(node_id, 0), *_outputs_behind(prompt, (node_id, 0), _MODEL)}
    with_words = {(node_id, 1), *_outputs_behind(prompt, (node_id, 1), _CONDITIONING)}
    for other, node in prompt.items():
        links = dict(_links(node))
        if "model" in links and links["model"] not in with_model and with_words & set(links.values()):
            logger.warning(
                "%s: its `positive` goes to the node %s (%s) with another model, so nothing is guided there; connect "
                "its `model`, too.",
                node_name,
                other,
                node.get("class_type"),
            )


def _outputs_behind(prompt: Prompt, start: tuple[str, int], kind: str) -> set[tuple[str, int]]:
    """Outputs of a type that are made, directly or through others of the type, from an output."""
    found: set[tuple[str, int]] = set()
    waiting = [start]
    while waiting:
        source = waiting.pop()
        for other, node in prompt.items():
            if source in dict(_links(node)).values():
                fresh = {(other, index) for index in _outputs_of(node, kind)} - found
                found |= fresh
                waiting += fresh
    return found


def _outputs_of(node: Mapping[str, Any], kind: str) -> list[int]:
    # The host's module has the name of our package.
    known = import_module("nodes").NODE_CLASS_MAPPINGS.get(str(node.get("class_type")))
    return [index for index, each in enumerate(getattr(known, "RETURN_TYPES", None) or ()) if each == kind]


def _links(node: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, int]]]:
    for name, value in (node.get("inputs") or {}).items():
        if isinstance(value, list) and len(value) == 2 and isinstance(value[1], int):
            yield name, (str(value[0]), value[1])
