"""What the tests on the server share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def sd1_checkpoint() -> str:
    """The checkpoint, among the server's, that the templates are run with."""
    return "tiny.safetensors"
