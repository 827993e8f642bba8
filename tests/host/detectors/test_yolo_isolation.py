"""Loading a YOLO file in a process of its own: nothing is written, asked for or run outside the settings' folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support.locations import REPOSITORY
from support.models import detector_files

WATCHED = """
import json, os, sys, tempfile
from pathlib import Path
home, file, settings = sys.argv[1:4]
events = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request"):
        events.append(event)
    elif event == "open" and isinstance(arguments[0], str) and isinstance(arguments[2], int):
        if arguments[2] & (os.O_WRONLY | os.O_RDWR):
            events.append("write " + arguments[0])
    elif event == "subprocess.Popen":
        events.append("run " + str(arguments[1]))
sys.path.insert(0, sys.argv[4])
environment = dict(os.environ)
import torch
tempfile.gettempdir()  # Python tries its folder once by writing to it.
sys.addaudithook(watch)
from compinv_core.detectors.yolo import load_yolo
load_yolo(Path(file), "mine", 0.5, Path(settings)).detect(torch.rand(1, 64, 64, 3))
from ultralytics.utils import SETTINGS
print(json.dumps([events, dict(os.environ) == environment, SETTINGS["sync"]]))
"""


def test_ultralytics_reaches_for_nothing_outside(tmp_path: Path) -> None:
    network = detector_files.yolo_network("yolo11n.yaml", tmp_path / "ultralytics")
    file = detector_files.save_yolo(tmp_path / "file.pt", network, **detector_files.YOLO_EXTRAS)
    home, settings, work = tmp_path / "home", tmp_path / "settings", tmp_path / "work"
    for folder in (home, work):
        folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("YOLO_", "XDG_"))}
    answer = subprocess.run(
        [sys.executable, "-B", "-c", WATCHED, str(home), str(file), str(settings), str(REPOSITORY)],
        cwd=work,
        # torch's compiler would write its default for the last one into the environment by itself.
        env=environment | {"HOME": str(home), "MPLCONFIGDIR": str(settings), "TORCHINDUCTOR_CACHE_DIR": str(settings)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    events, environment_as_before, sync = json.loads(answer.stdout.splitlines()[-1])
    outside = [event for event in events if str(settings) not in event and os.devnull not in event]
    assert not [event for event in outside if not event.startswith("run ")], events
    assert not [event for event in outside if "pip" in event], events
    assert environment_as_before and sync is False
    assert not list(home.rglob("*")) and not list(work.rglob("*"))


WITHOUT = """
import sys
from pathlib import Path
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ultralytics":
            raise ModuleNotFoundError("No module named 'ultralytics'", name="ultralytics")
sys.meta_path.insert(0, Missing())
sys.path.insert(0, sys.argv[1])
from support import host
host.start()
import folder_paths
folder_paths.models_dir = sys.argv[2]
from compinv_core.host.detectors.files import detector_names
from compinv_core.host.detectors.loading import load_detector
print([name for name in detector_names() if name.endswith(".pt")])
try:
    load_detector("yolo", "ultralytics/file.pt", 0.5)
except Exception as error:
    print(error)
load_detector("detr", "miniature world", 0.5)
print("detr works")
"""


def test_without_ultralytics_a_sentence_has_the_command_and_all_else_works(tmp_path: Path) -> None:
    network = detector_files.yolo_network("yolo11n.yaml", tmp_path / "settings")
    detector_files.save_yolo(tmp_path / "models" / "ultralytics" / "file.pt", network)
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(REPOSITORY / "tests"), str(tmp_path / "models")],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    offered, sentence, detr = answer.stdout.splitlines()[-3:]
    assert offered == "['ultralytics/file.pt']"
    file = REPOSITORY / "requirements-yolo.txt"
    assert file.is_file() and f'python" -m pip install -r "{file}"' in sentence
    assert detr == "detr works"
