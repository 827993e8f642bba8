"""Where the repository and the host under test lie; importing this puts both on the path."""

from __future__ import annotations

import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HOST = Path(os.environ.get("COMFYUI_PATH") or REPOSITORY / ".comfyui").resolve()

# The host comes first: its module nodes.py has the same name as our package nodes/.
for _folder in (HOST, REPOSITORY):
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))


def require_host() -> Path:
    """Return the folder of the ComfyUI under test, or say how to get one."""
    if not (HOST / "main.py").is_file():
        raise FileNotFoundError(f"No ComfyUI in {HOST}: run `make setup`, or set COMFYUI_PATH to a checkout.")
    return HOST
