"""Long work in a process of its own that can be killed: the three trainings, and a collection of layouts."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..models.training_case import Loaded, anchored_run
from .amounts import ALL

STEPS = 6
TRAININGS = ("textual_inversion", "custom_diffusion", "dreambooth")
JOBS = (*TRAININGS, "collection")
SOME = JOBS if ALL else ("textual_inversion", "collection")
"""Those that take part in what takes long."""


def job(name: str, loaded: Loaded, folder: Path, listen: Callable[[], None] = lambda: None) -> None:
    """Do the work of this name in a folder, and write what came out into ``RESULT.pt`` beside it.

    Parameters
    ----------
    listen : callable
        Called after each step or batch.
    """
    if name == "collection":
        from compinv_core.host.layouts.collection import collect_layouts
        from compinv_core.host.layouts.collection_config import CollectionConfig
        from compinv_core.host.text.encoder import load_anchors

        from ..layouts import NOUNS, PixelDetector, collection

        config = CollectionConfig(**collection())
        with torch.inference_mode():
            anchors = load_anchors(loaded[1], NOUNS)
            collect_layouts(*loaded, PixelDetector(), anchors, config, folder / "run", lambda dataset: listen())
        return
    places = {
        "run_dir": folder / "run",
        "embedding_folder": folder / "embeddings",
        "lora_path": folder / "l.safetensors",
    }
    if name != "custom_diffusion":
        del places["lora_path"]
    anchored_run(loaded, name, STEPS, 1, on_step=lambda step, losses: listen(), **places)


def files(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fork(work: Callable[[], Any]) -> int:
    """Do work in a child of this process, which has everything loaded; return its number."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def finish(child: int) -> None:
    """Wait for a child that has to end well."""
    assert os.waitpid(child, 0)[1] == 0


def kill_within(child: int, seconds: float, rng: random.Random) -> bool:
    """Kill a child at some moment within a time; tell whether it was still at work."""
    time.sleep(rng.uniform(0, seconds))
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == signal.SIGKILL
