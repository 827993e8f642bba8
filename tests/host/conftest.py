"""What the tests on the host share, on its server and in process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from support import host
from support.models.training_case import Loaded, load_as_executor
from support.server import ComfyServer


@pytest.fixture(scope="session", params=["tiny", "miniworld"])
def sd1_checkpoint(request: pytest.FixtureRequest, server: ComfyServer) -> str:
    """The checkpoint, among the server's, that the templates are run with: random weights, and the miniature world."""
    name = f"{request.param}.safetensors"
    if request.param == "miniworld":
        from miniworld.networks.checkpoint import assemble

        assemble(server.base / "models" / "checkpoints" / name)
    return name


@pytest.fixture(scope="module", autouse=True)
def room() -> Iterator[None]:
    """Room for the tests of the next module, and for those in another process."""
    yield
    host.make_room()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums over several threads may differ in the last bit from run to run."""
    host.start()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    """MODEL, CLIP and VAE of the tiny checkpoint, as the executor holds them."""
    return load_as_executor()
