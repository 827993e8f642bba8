"""Where the repository and the host under test lie."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HOST = Path(os.environ.get("COMFYUI_PATH") or REPOSITORY / ".comfyui").resolve()


def require_host() -> Path:
    """Return the folder of the ComfyUI under test, or say how to get one."""
    if not (HOST / "main.py").is_file():
        raise FileNotFoundError(f"No ComfyUI in {HOST}: run `make setup`, or set COMFYUI_PATH to a checkout.")
    return HOST
