"""What the nodes' schemas share: the category, the pack's own sockets, and inputs from settings declared once.

Each socket carries one frozen dataclass of `compinv_core`.
"""

from __future__ import annotations

import math
from typing import Any

from comfy_api.latest import io

from ..compinv_core.basics.settings import Setting, settings_of
from ..compinv_core.host.family import supported

CATEGORY = "compositional inversion"
# Of a model input's tooltip.
MODEL = f"A model of {supported('or')}"

Anchors = io.Custom("COMPINV_ANCHORS")
Concept = io.Custom("COMPINV_CONCEPT")
ConceptImages = io.Custom("COMPINV_CONCEPT_IMAGES")
Layout = io.Custom("COMPINV_LAYOUT")
LayoutPredictor = io.Custom("COMPINV_LAYOUT_PREDICTOR")
LayoutDataset = io.Custom("COMPINV_LAYOUT_DATASET")
Detector = io.Custom("COMPINV_DETECTOR")
Attention = io.Custom("COMPINV_ATTENTION")
Report = io.Custom("COMPINV_REPORT")


def setting_inputs(kind: type, *groups: str) -> list[io.Input]:
    """Return the inputs of a settings class, group after group; all of them without any."""
    return [_input(declared) for declared in settings_of(kind, *groups).values()]


def _input(declared: Setting) -> io.Input:
    common: dict[str, Any] = {"default": declared.default, "tooltip": declared.tooltip}
    if declared.optional:
        common["optional"] = True
    if declared.rare:
        common["advanced"] = True
    if declared.kind == "switch":
        return io.Boolean.Input(declared.name, **common)
    if declared.kind == "choice":
        return io.Combo.Input(declared.name, options=list(declared.options), **common)
    if declared.kind in ("text", "lines"):
        return io.String.Input(declared.name, multiline=declared.long, **common)
    if declared.kind == "whole number":
        if declared.seed:
            common["control_after_generate"] = io.ControlAfterGenerate.fixed
        # A click goes from one allowed number to the next.
        low, high = int(declared.low), int(declared.high)
        return io.Int.Input(declared.name, min=low, max=high, step=declared.multiple, **common)
    if math.isfinite(declared.high):
        common["max"] = declared.high
    # The widget has no open end: a small part of a click stands for "above".
    common["min"] = declared.low + (declared.step or 0.0) / 1000 if declared.above else declared.low
    common["round"] = declared.round or False
    return io.Float.Input(declared.name, step=declared.step or 0.01, **common)
