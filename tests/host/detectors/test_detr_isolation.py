"""Loading a DETR in a process of its own: whatever its settings name, nothing is asked of the network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.locations import REPOSITORY
from support.models import detector_files

WATCHED = """
import json, sys
from pathlib import Path
events = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request"):
        events.append(event)
sys.path.insert(0, sys.argv[2])
import torch
from compinv_core.detectors.detr import load_detr
from compinv_core.basics.errors import UserError
sys.addaudithook(watch)
try:
    load_detr(Path(sys.argv[1]), "mine", 0.5).detect(torch.rand(1, 64, 64, 3))
    said = ""
except UserError as error:
    said = str(error)
print(json.dumps([events, said]))
"""
ON_THE_HUB = {"backbone_config": None, "use_timm_backbone": False}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"attn_implementation": "kernels-community/flash-attn", "auto_map": {"AutoConfig": "someone/else--x.Y"}}, ""),
        ({**ON_THE_HUB, "backbone": "someone/swin-tiny"}, "backbone someone/swin-tiny, which cannot be built"),
        # Its shape is known, and the folder's weights are of another.
        ({**ON_THE_HUB, "backbone": "microsoft/resnet-50"}, "choose another"),
    ],
)
def test_a_folder_reaches_for_nothing_outside(settings: dict[str, Any], says: str, tmp_path: Path) -> None:
    folder = detector_files.save_detr(tmp_path / "small")
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **settings}))
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_OFFLINE")}
    answer = subprocess.run(
        [sys.executable, "-B", "-c", WATCHED, str(folder), str(REPOSITORY)],
        env=environment | {"HF_HOME": str(tmp_path / "hub")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    events, said = json.loads(answer.stdout.splitlines()[-1])
    assert events == []
    assert says in said if says else not said
