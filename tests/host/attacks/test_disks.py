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
import json, os, shutil, subprocess, sys
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
    with (disk / "filler").open("wb") as filler:
        try:
            while True:
                filler.write(bytes(4096))
                filler.flush()
        except OSError:
            pass


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
                elif trouble == "read-only":
                    mount("-o", "remount,ro")
                else:
                    vanish()

        try:
            jobs.job(name, loaded, disk, listen)
            sentence = ""
        except Exception as error:
            sentence = f"{{type(error).__name__}}: {{error}}"
        if trouble == "read-only":
            mount("-o", "remount,rw")
        (disk / "filler").unlink(missing_ok=True)
        steps = 3
        jobs.job(name, loaded, disk, listen)
        same = jobs.files(disk) == jobs.files(base / name / "straight")
        said[f"{{name}}, {{trouble}}"] = [sentence, same]
        subprocess.run(["umount", str(disk)], check=True)
print(json.dumps(said))
"""
SENTENCES = {"full": "UserError: The disk is full: ", "read-only": "UserError: Nothing can be written to the folder "}


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
    for trouble in ("full",):
        sentence, same = said[f"{name}, {trouble}"]
        assert sentence.startswith(SENTENCES[trouble]) and same, (trouble, sentence, same)
    # What vanished is written anew, or begun anew.
    sentence, same = said[f"{name}, vanished"]
    assert same and (not sentence or sentence.startswith("UserError")), sentence
