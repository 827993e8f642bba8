"""What the tests of SDXL and Stable Diffusion 2 share."""

from __future__ import annotations

import pytest

from support.models.families import FAMILIES, FamilyCase


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest) -> FamilyCase:
    """Each family on its random checkpoint."""
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def sdxl() -> FamilyCase:
    """The family with two text encoders."""
    return FAMILIES["sdxl"]
