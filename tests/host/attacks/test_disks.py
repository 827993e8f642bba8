"""Disks that fill up or vanish under the trainings and the collection, at any step.

Each runs in a user's name space of its own, in which it may mount a small disk.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support import locations
from support.attacks import jobs

SCRIPT = """
import json, shutil, subprocess, sys
from contextlib import suppress
from pathlib import Path
sys.path.insert(0, {tests!r})
from support import host
host.start()
import torch
torch.set_num_threads(1)
from support.attacks import jobs
from support.models.training_case import load_as_executor
loaded, base = load_as_executor(), Path(sys.argv[1])


def mount(*options):
    subprocess.run(["mount", *options, str(disk)], check=True)


def fill():
    # Unbuffered: closing has nothing left to write.
    with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(1 << 20))
    with (disk / "filler").open("ab", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(1))


def vanish():
    shutil.rmtree(disk / "run")


said = {{}}
for name in sys.argv[2:]:
    jobs.job(name, loaded, base / name / "straight")
    for trouble in ("full", "vanished"):
        disk = base / name / trouble
        disk.mkdir()
        mount("-t", "tmpfs", "-o", "size=3g", "tmpfs")
        steps = 0

        def listen():
            global steps
            steps += 1
            if steps == 2:
                if trouble == "full":
                    fill()
                else:
                    vanish()

        try:
            jobs.job(name, loaded, disk, listen)
            sentence = ""
        except Exception as error:
            sentence = f"{{type(error).__name__}}: {{error}}"
        (disk / "filler").unlink(missing_ok=True)
        steps = 3
        jobs.job(name, loaded, disk, listen)
        there, straight = jobs.files(disk), jobs.files(base / name / "straight")
        same = there == {{path: straight.get(path) for path in there}}
        said[trouble] = [sentence, same, sorted(straight.keys() - there)]
        subprocess.run(["umount", str(disk)], check=True)
print(json.dumps(said))
"""


def may_mount() -> bool:
    command = ["unshare", "--mount", "--user", "--map-root-user", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return sys.platform == "linux" and not subprocess.run(command, capture_output=True).returncode


@pytest.mark.skipif(not may_mount(), reason="needs Linux, where a person may mount a disk for a program alone")
@pytest.mark.parametrize("name", jobs.SOME)
def test_a_disk_in_trouble_gets_a_sentence_and_the_work_goes_on_later(tmp_path: Path, name: str) -> None:
    script = SCRIPT.format(tests=str(locations.REPOSITORY / "tests"))
    command = ["unshare", "--mount", "--user", "--map-root-user", sys.executable, "-c", script, str(tmp_path), name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    said = json.loads(done.stdout.splitlines()[-1])
    sentence, same, lacking = said["full"]
    assert sentence.startswith("UserError: The disk is full: ") and same and not lacking, (sentence, same, lacking)
    # What vanished is written anew, or begun anew; only what was kept of steps before cannot come back.
    sentence, same, lacking = said["vanished"]
    assert same and (not sentence or sentence.startswith("UserError")), (sentence, same)
    assert all(path.startswith("run/saved/") for path in lacking), lacking
