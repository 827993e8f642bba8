"""The node classes, one module per subject; each module ends in its own `NODES` list."""

from __future__ import annotations

from . import anchors, attention, concepts, detect, evaluate, guidance, layout, layout_data, layout_predictor, learn

NODES = [
    *anchors.NODES,
    *learn.NODES,
    *concepts.NODES,
    *detect.NODES,
    *layout.NODES,
    *layout_data.NODES,
    *layout_predictor.NODES,
    *guidance.NODES,
    *attention.NODES,
    *evaluate.NODES,
]

__all__ = ["NODES"]
