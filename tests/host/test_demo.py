"""The demo's graphs on the real server, with as few steps as make sense."""

from __future__ import annotations

import numpy as np
import pytest

from miniworld import demo
from miniworld.instances import INSTANCES


@pytest.fixture
def short(monkeypatch):
    """Two training steps, two sampling steps, two pictures a cell."""
    monkeypatch.setitem(demo.INVERSION, "steps", 2)
    monkeypatch.setitem(demo.INVERSION, "batch_size", 1)
    monkeypatch.setitem(demo.PAINTING, "steps", 2)
    monkeypatch.setattr(demo, "PICTURES", 2)


def test_demo_learns_paints_and_scores(tmp_path, short):
    folder = tmp_path / "demo-output"
    demo.make(folder)
    scores = demo.read_scores(folder)
    assert set(scores["cells"]) == {cell.key for cell in demo.CELLS}
    for row in scores["cells"].values():
        assert row["n"] == 2
        assert 0 <= row["own"] <= 1 and 0 <= row["other"] <= 1 and -1 <= row["image_alignment"] <= 1
    assert (folder / "ablation.png").stat().st_size > 10_000

    before = {file: file.stat().st_mtime_ns for file in (folder / "pictures").iterdir()}
    assert len(before) == 2 * len(demo.CELLS)
    demo.make(folder)
    assert {file: file.stat().st_mtime_ns for file in (folder / "pictures").iterdir()} == before


def test_masks_travel_in_the_alpha_channel(tmp_path):
    from PIL import Image

    from miniworld.instances import photos

    instance = INSTANCES[demo.OWN]
    names = demo.write_photos(instance, tmp_path)
    pictures, masks = photos(instance)
    stored = np.asarray(Image.open(tmp_path / names[0]))
    assert np.array_equal(stored[..., :3], pictures[0])
    assert np.abs((1 - stored[..., 3] / 255) - masks[0]).max() < 0.01
