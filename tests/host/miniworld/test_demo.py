"""The demo's graphs on the real server, with as few steps as make sense."""

from __future__ import annotations

import numpy as np
import pytest

from miniworld import demo
from miniworld.world.instances import INSTANCES


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
        assert all(0 <= row[share] <= 1 for share in ("own", "composed", "all_there", "identified", "text_alignment"))
        assert -1 <= row["image_alignment"] <= 1
    assert (folder / "ablation.png").stat().st_size > 10_000

    before = {file: file.stat().st_mtime_ns for file in (folder / "pictures").iterdir()}
    assert len(before) == 2 * len(demo.CELLS)
    demo.make(folder)
    assert {file: file.stat().st_mtime_ns for file in (folder / "pictures").iterdir()} == before


def test_what_other_settings_made_is_set_aside(tmp_path, monkeypatch):
    folder = tmp_path / "demo-output"
    demo.set_aside_what_is_out_of_date(folder)
    (folder / "ablation.png").write_bytes(b"a picture")
    demo.set_aside_what_is_out_of_date(folder)
    assert (folder / "ablation.png").exists()

    monkeypatch.setitem(demo.INVERSION, "steps", 2)
    demo.set_aside_what_is_out_of_date(folder)
    assert not (folder / "ablation.png").exists()
    assert (tmp_path / "demo-output-previous" / "ablation.png").read_bytes() == b"a picture"

    (folder / "ablation.png").write_bytes(b"another one")
    monkeypatch.setitem(demo.INVERSION, "steps", 3)
    demo.set_aside_what_is_out_of_date(folder)
    assert (tmp_path / "demo-output-previous" / "ablation.png").read_bytes() == b"a picture"
    assert (tmp_path / "demo-output-previous-2" / "ablation.png").read_bytes() == b"another one"


def test_a_folder_that_no_demo_made_stays_where_it_is(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    demo.set_aside_what_is_out_of_date(tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_photos_are_whole(tmp_path):
    from PIL import Image

    from miniworld.world.instances import photos

    instance = INSTANCES[demo.OWN]
    names = demo.write_photos(instance, tmp_path)
    pictures, _ = photos(instance)
    assert len(names) == len(pictures) and all(
        np.array_equal(np.asarray(Image.open(tmp_path / name)), picture)
        for name, picture in zip(names, pictures, strict=True)
    )
