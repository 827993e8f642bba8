"""Words of the miniature world learned side by side on the real host, against the same words learned alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from support.locations import REPOSITORY

SCRIPT = """
import json, sys
from pathlib import Path
from miniworld.laboratory.models import Laboratory, as_thing
from miniworld.laboratory.things import Word
from miniworld.world.instances import CHOOSING

laboratory = Laboratory(Path(sys.argv[1]))
things = [as_thing(instance) for instance in CHOOSING[:2]]
common = {"steps": 6, "batch_size": 2, "learning_rate": 0.01, "anchor_reduction": "sum"}

def words(way):
    return [
        Word(things[0], f"{way}-held", False, True, {**common, "anchor_weight": 0.3, "seed": 1}),
        Word(things[1], f"{way}-free", True, False, {**common, "anchor_weight": 0.0, "num_vectors": 3}),
        Word(things[1], f"{way}-bound", False, True, {**common, "hold": "radius", "radius": 0.05, "steps": 4}),
        Word(things[0], f"{way}-sphere", False, True, {**common, "hold": "sphere", "context_weight": 0.5, "steps": 4}),
    ]

assert not laboratory.on_card
laboratory.learn_all(words("alone"))
laboratory.learn_all(words("joint"), together=True)
folder = laboratory.base / "models" / "embeddings"
first = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
(folder / "joint-free.safetensors").unlink()
laboratory.learn_all(words("joint"), together=True)
second = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
print(json.dumps([first, second]))
"""


def a_word(path: Path) -> tuple[torch.Tensor, dict[str, str]]:
    with safe_open(path, "pt") as file:
        (key,) = file.keys()
        return file.get_tensor(key), file.metadata()


def test_words_side_by_side_are_those_learned_alone(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("held", "free", "bound", "sphere"):
        (alone, about), (joint, about_joint) = (
            a_word(tmp_path / "models" / "embeddings" / f"{way}-{name}.safetensors") for way in ("alone", "joint")
        )
        assert alone.shape == joint.shape and (alone - joint).abs().max() < 1e-4
        scores, scores_joint = (json.loads(each.pop("composition")) for each in (about, about_joint))
        # They are written to four digits.
        assert scores_joint == pytest.approx(scores, abs=1.5e-4) and len(scores) == 2
        assert {**about, "name": ""} == {**about_joint, "name": ""}
    first, second = json.loads(done.stdout.splitlines()[-1])
    # Only the word that was gone is learned again.
    assert [name for name in first if first[name] != second[name]] == ["joint-free.safetensors"]
