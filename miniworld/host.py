"""The ComfyUI of the miniature world, the benches and the tests: where it lies, and how it runs in this process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
HOST = Path(os.environ.get("COMFYUI_PATH") or REPOSITORY / ".comfyui").resolve()
FOLDERS = ("models/checkpoints", "models/embeddings", "models/compinv/anchors", "input", "output", "temp")


def host_path() -> Path:
    """Folder of the ComfyUI to use: ``COMFYUI_PATH``, else the repository's own ``.comfyui``."""
    if not (HOST / "main.py").is_file():
        raise FileNotFoundError(f"There is no ComfyUI in {HOST}; run `make setup`, or set COMFYUI_PATH to one.")
    return HOST


def put_on_path() -> None:
    """Make the host's modules and the repository's packages importable."""
    # The host comes first: its module nodes.py has the same name as our package nodes/.
    for folder in (str(REPOSITORY), str(HOST)):
        if folder in sys.path:
            sys.path.remove(folder)
        sys.path.insert(0, folder)


def start_in_process(base: Path, card: bool = False) -> None:
    """Set up the host in this process before its first heavy import, on the CPU or on a graphics card.

    Parameters
    ----------
    base
        Folder under which the host keeps models, inputs and outputs.

    Raises
    ------
    RuntimeError
        If the host was set up with another folder before.
    """
    host_path()
    put_on_path()
    import comfy.cli_args

    comfy.cli_args.args.cpu = not card
    comfy.cli_args.args.base_directory = str(base)
    for name in FOLDERS:
        (base / name).mkdir(parents=True, exist_ok=True)
    import folder_paths

    if Path(folder_paths.base_path) != base:
        raise RuntimeError(f"ComfyUI was set up in {folder_paths.base_path} before; start it in {base} first.")
