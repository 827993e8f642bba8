"""ComfyUI inside the test process, on the CPU, with a base directory of its own."""

from __future__ import annotations

import functools
import gc
import importlib.util
import logging
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from . import checkpoints, locations

_LARGE = 3 * 2**30
_loaded: dict[str, tuple[Any, Any, Any]] = {}


@functools.cache
def start() -> Path:
    """Set up the host once per process, before its first heavy import, and return its base directory.

    Models, embeddings, inputs and outputs of the in-process host live under the folder returned.
    """
    base = Path(tempfile.mkdtemp(prefix="compinv-host-"))
    locations.start_in_process(base)
    logging.getLogger().setLevel(logging.WARNING)
    return base


def load_anew(kind: str = "tiny") -> tuple[Any, Any, Any]:
    """Return (MODEL, CLIP, VAE) of a random checkpoint, as CheckpointLoaderSimple would; CLIP may be None.

    One of the larger kinds takes about a gigabyte, until nothing holds it.
    """
    base = start()
    import comfy.sd

    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
        str(checkpoints.build(kind)),
        embedding_directory=[str(base / "models" / "embeddings")],
        te_model_options=checkpoints.text_options(kind),
    )
    return model, clip, vae


def load(kind: str = "tiny") -> tuple[Any, Any, Any]:
    """Return what `load_anew` does, once per module of tests at least.

    The objects are shared by the tests: clone before patching, and leave them as they were.
    """
    if kind not in _loaded:
        _loaded[kind] = load_anew(kind)
    return _loaded[kind]


def make_room() -> None:
    """Let go of all checkpoints but the usual one where this process has become large: others test beside it."""
    if psutil.Process().memory_info().rss > _LARGE:
        for kind in _loaded.keys() - {"tiny"}:
            del _loaded[kind]
        gc.collect()


@functools.cache
def load_pack() -> ModuleType:
    """Import the whole pack as ComfyUI does, under the name `compinv_pack`.

    Its modules (`compinv_pack.nodes.train`, `compinv_pack.compinv_core…`) are other objects than those of a plain
    `import compinv_core`: classes of the two must not be mixed.
    """
    start()
    root = locations.REPOSITORY
    spec = importlib.util.spec_from_file_location(
        "compinv_pack", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compinv_pack"] = module
    spec.loader.exec_module(module)
    return module
