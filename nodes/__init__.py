"""The node classes, one module per domain; each module ends in its own `NODES` list."""

from __future__ import annotations

NODES: list = []

__all__ = ["NODES"]
