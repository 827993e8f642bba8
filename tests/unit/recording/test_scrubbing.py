"""What the attention panel draws: sheets of one scale, and curves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from compinv_core.recording.measures import attention_curves
from compinv_core.recording.record import AttentionFrame, AttentionRecord
from compinv_core.recording.scrubbing import write_scrubber
from compinv_core.spatial.attention import BlockMaps

LEFT = (0.0, 0.0, 0.5, 1.0)


def maps(*levels: float) -> tuple[BlockMaps, ...]:
    """Of two images and two phrases, 2×2 cells: the first image's first phrase has these levels, all else zeros."""
    values = torch.zeros(2, 2, 2, 2)
    values[0, 0] = torch.tensor(levels).reshape(2, 2)
    return (BlockMaps(values),)


@pytest.fixture
def written(tmp_path: Path) -> tuple[dict, Path]:
    frames = (
        AttentionFrame(0, 9.0, maps(1, 0, 0, 0), maps(0, 1, 0, 0)),
        AttentionFrame(2, 1.0, maps(3, 1, 0, 0)),
    )
    boxes = (LEFT, None)
    record = AttentionRecord("a cat and a ball", ("a cat", "a ball"), boxes, frames, 4, 2, 4)
    path = write_scrubber(record, attention_curves(record, boxes), boxes, torch.ones(2, 8, 16, 3), tmp_path / "shown")
    return json.loads(path.read_text()), path.parent


def test_a_sheet_has_a_row_for_each_step_and_a_column_for_each_image(written: tuple[dict, Path]) -> None:
    shown, folder = written
    assert (shown["phrases"], shown["steps"], shown["total"]) == (["a cat", "a ball"], [0, 2], 4)
    assert (shown["cell"], shown["aspect"], shown["boxes"]) == ([2, 2], 2.0, [list(LEFT), None])
    levels = np.asarray(Image.open(folder / shown["sheets"][0]))
    third = 85
    assert levels.tolist() == [[third, 0, 0, 0], [0, 0, 0, 0], [255, third, 0, 0], [0, 0, 0, 0]]
    assert Image.open(folder / shown["sheets"][0]).convert("RGB").getpixel((0, 2)) == (252, 255, 164)
    assert [Image.open(folder / name).size for name in shown["pictures"]] == [(16, 8)] * 2


def test_the_location_loss_is_the_attention_outside_the_box(written: tuple[dict, Path]) -> None:
    (loss,) = [curve for curve in written[0]["curves"] if "Location loss" in curve["title"]]
    after, before = loss["lines"]
    assert after["values"][0] == [0.0, 0.25] and not after["dashed"]
    assert before["values"][0] == [1.0, None] and before["dashed"]


def test_a_soft_mask_is_shown_by_the_box_around_it(tmp_path: Path) -> None:
    places = (torch.tensor([[0.0, 0.2], [0.0, 1.0]]), LEFT)
    frames = (AttentionFrame(0, 9.0, maps(1, 0, 0, 0)),)
    record = AttentionRecord("a cat and a ball", ("a cat", "a ball"), places, frames, 1, 2, 4)
    path = write_scrubber(record, attention_curves(record, places), places, None, tmp_path)
    assert json.loads(path.read_text())["boxes"] == [[0.5, 0.5, 1.0, 1.0], list(LEFT)]


def test_the_same_content_has_the_same_files(written: tuple[dict, Path], tmp_path: Path) -> None:
    # Both phrases' sheets differ; the second is zeros.
    assert len(set(written[0]["sheets"])) == 2 and len(set(written[0]["pictures"])) == 1
    assert len(list(written[1].iterdir())) == 4
