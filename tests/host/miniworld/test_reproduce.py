"""One block of the reproduction on the real host: it learns, paints, measures, draws, and gives the same rows again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from support.locations import REPOSITORY

SCRIPT = """
import json, sys
from pathlib import Path
from bench.reproduce.figures import write_figures
from bench.reproduce.protocol import Block
from bench.reproduce.work import carry_out
from bench.reproduce.worlds import Place

folder = Path(sys.argv[1])
place = Place(str(folder), changes=(("steps", 3),))
block = Block(0, "textual inversion", True, False, ("my-cat",), ("boat",), 0, 2, True, 0.01)
rows = carry_out(block, place)
again = carry_out(block, place)
figures = write_figures(place.open(), [block], folder)
(folder / "result.json").write_text(json.dumps([rows, again, [str(figure) for figure in figures]]))
"""


def test_a_block_learns_paints_and_measures(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows, again, figures = json.loads((tmp_path / "result.json").read_text())
    assert rows == again
    # Without and with guidance, in both orders, two pictures each.
    keys = [(row["spatial"], row["order"], row["picture"]) for row in rows]
    assert keys == [(s, o, p) for s in (0, 1) for o in (0, 1) for p in (0, 1)]
    for row in rows:
        assert row["method"] == "textual inversion" and row["semantic"] == 1 and row["other"] == "boat"
        assert {row[name] for name in ("own", "composed", "all_there", "duplicates", "identified")} <= {0, 1}
        assert row["all_there"] == (row["own"] and row["composed"])
        assert 0 <= row["text_alignment"] <= 1 and 0 <= row["identity"] <= 1 and -1 <= row["background"] <= 1
    # The attention of one picture for each prompt without guidance.
    assert [key for key, row in zip(keys, rows, strict=True) if "attention_ratio" in row] == [(0, 0, 0), (0, 1, 0)]
    assert (tmp_path / "comfyui" / "models" / "embeddings" / "ti-sw-0-my-cat.safetensors").is_file()
    names = {Path(figure).name for figure in figures}
    assert {"figure-1.png", "figure-7.png", "figure-2-pretrained.png", "figure-9-semantic.png"} <= names
    for figure in figures:
        assert min(Image.open(figure).size) > 100
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 8
