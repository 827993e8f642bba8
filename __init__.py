"""Compositional Inversion: a ComfyUI node pack that learns a concept so that it goes together with others."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .compinv_core.host.graph import routes
from .nodes import NODES

WEB_DIRECTORY = "./web"


class CompositionalInversionExtension(ComfyExtension):
    """Hands the pack's node classes to ComfyUI."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)


async def comfy_entrypoint() -> CompositionalInversionExtension:
    """Entry point that ComfyUI calls once, after importing this module."""
    routes.register()
    return CompositionalInversionExtension()


__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
