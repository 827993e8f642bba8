"""Turns workflows of the editor into prompts for the server, and changes prompts."""

from __future__ import annotations

import copy
from typing import Any

Prompt = dict[str, dict[str, Any]]


def to_prompt(graph: dict[str, Any], object_info: dict[str, Any]) -> Prompt:
    """Convert a saved graph (without subgraphs) to the API format, as the Run button does.

    Parameters
    ----------
    graph : dict
        A workflow file as the editor saves it.
    object_info : dict
        The server's answer to `/object_info`; nodes that it does not know (notes) are left out.
    """
    sources = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    return {
        str(node["id"]): {"class_type": node["type"], "inputs": _inputs(node, object_info[node["type"]], sources)}
        for node in graph["nodes"]
        if node["type"] in object_info
    }


def _inputs(node: dict[str, Any], info: dict[str, Any], sources: dict[int, list]) -> dict[str, Any]:
    known = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    options = {name: spec[1] if len(spec) > 1 else {} for name, spec in known.items()}
    values = iter(node.get("widgets_values") or [])
    inputs: dict[str, Any] = {}
    for slot in node["inputs"]:
        name = slot["name"]
        if "widget" in slot:
            value = next(values)
            if name in known:
                # A bare list would be read as a link.
                inputs[name] = {"__value__": value} if isinstance(value, list) else value
                if options[name].get("control_after_generate"):
                    next(values)
        if slot.get("link") is not None:
            inputs[name] = sources[slot["link"]]
    return inputs


def changed(prompt: Prompt, **changes: dict[str, Any]) -> Prompt:
    """Return a copy of a prompt with inputs of all nodes of a type replaced: `changed(p, KSampler={"steps": 2})`."""
    prompt = copy.deepcopy(prompt)
    for kind, inputs in changes.items():
        nodes = [node for node in prompt.values() if node["class_type"] == kind]
        if not nodes:
            raise KeyError(f"The prompt has no {kind}.")
        for node in nodes:
            node["inputs"].update(inputs)
    return prompt


def with_photos(prompt: Prompt, *names: str) -> Prompt:
    """Return a copy of a prompt whose Load Image nodes have these pictures, in the order of the nodes."""
    prompt = copy.deepcopy(prompt)
    loads = [node["inputs"] for node in prompt.values() if node["class_type"] == "LoadImage"]
    for inputs, name in zip(loads, names, strict=True):
        inputs["image"] = name
    return prompt


def find(prompt: Prompt, kind: str) -> str:
    """Return the id of the only node of a type."""
    (key,) = [key for key, node in prompt.items() if node["class_type"] == kind]
    return key
