"""The node classes, one module per domain; each module ends in its own `NODES` list."""

from __future__ import annotations

from . import anchors, detect, guidance, layout, train

NODES = [*anchors.NODES, *train.NODES, *detect.NODES, *layout.NODES, *guidance.NODES]

__all__ = ["NODES"]
