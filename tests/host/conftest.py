"""What the tests on the server share."""

from __future__ import annotations

import pytest

from support.server import ComfyServer


@pytest.fixture(scope="session", params=["tiny", "miniworld"])
def sd1_checkpoint(request: pytest.FixtureRequest, server: ComfyServer) -> str:
    """The checkpoint, among the server's, that the templates are run with: random weights, and the miniature world."""
    name = f"{request.param}.safetensors"
    if request.param == "miniworld":
        from miniworld.checkpoint import assemble

        assemble(server.base / "models" / "checkpoints" / name)
    return name
