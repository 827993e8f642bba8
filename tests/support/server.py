"""The ComfyUI server that the demo uses, for the tests."""

from __future__ import annotations

from . import locations  # noqa: F401 (puts the repository on the path)

from miniworld.laboratory.comfyui_server import PACK_FOLDER, ComfyServer, PromptResult  # isort: skip

__all__ = ["PACK_FOLDER", "ComfyServer", "PromptResult"]
