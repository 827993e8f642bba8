"""Fixtures shared by all tests: where the host is, and what runs on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import checkpoints, locations, pictures
from support.server import ComfyServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A running ComfyUI with the pack and the random checkpoints `tiny.safetensors` and `refiner.safetensors`.

    The former is also there under the name that the templates have.
    """
    locations.host_path()
    comfy = ComfyServer(tmp_path_factory.mktemp("comfyui"))
    for name in ("tiny.safetensors", "v1-5-pruned-emaonly-fp16.safetensors"):
        comfy.add_checkpoint(checkpoints.build("tiny"), name)
    comfy.add_checkpoint(checkpoints.build("refiner"), "refiner.safetensors")
    pictures.fill_input_folder(comfy.base / "input")
    comfy.start()
    yield comfy
    comfy.stop()
