"""Where the host's files are, for the tokenizer and for runs of the real thing."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def host_path() -> Path:
    """Folder of the ComfyUI to use: ``COMFYUI_PATH``, else the repository's own ``.comfyui``."""
    path = Path(os.environ.get("COMFYUI_PATH") or REPOSITORY / ".comfyui")
    if not (path / "comfy").is_dir():
        raise FileNotFoundError(f"There is no ComfyUI in {path}; run `make setup`, or set COMFYUI_PATH to one.")
    return path
