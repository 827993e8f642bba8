"""The node classes, one module per domain; each module ends in its own `NODES` list."""

from __future__ import annotations

from . import anchors, attention, concept_images, detect, guidance, layout, layout_data, layout_predictor, train, tune

NODES = [
    *anchors.NODES,
    *train.NODES,
    *concept_images.NODES,
    *tune.NODES,
    *detect.NODES,
    *layout.NODES,
    *layout_data.NODES,
    *layout_predictor.NODES,
    *guidance.NODES,
    *attention.NODES,
]

__all__ = ["NODES"]
