"""The browser tests need a Chromium; without one they are skipped, with the command that brings it."""

from __future__ import annotations

import pytest

from support import chromium


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if chromium.find():
        return
    skip = pytest.mark.skip(reason=f"no Chromium found; to enable the browser tests, run as root: {chromium.CURE}")
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker(skip)
