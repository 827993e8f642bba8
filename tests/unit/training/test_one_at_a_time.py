"""Two processes never work in one folder at a time, and a killed one holds nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from compinv_core.basics.errors import UserError
from compinv_core.training.run_folder.one_at_a_time import alone_in

HOLDING = """
import sys, time
from pathlib import Path
from compinv_core.training.run_folder.one_at_a_time import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_folder_of_another_process_is_refused_until_that_is_killed(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    other = subprocess.Popen([sys.executable, "-c", HOLDING, str(tmp_path / "run")], cwd=root, stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match='at work in the folder "run"'), alone_in(tmp_path / "run"):
        pass
    other.send_signal(signal.SIGKILL)
    other.wait()
    with alone_in(tmp_path / "run"):
        (tmp_path / "run" / "state").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["state"]


def test_a_folder_in_which_nothing_was_kept_goes(tmp_path: Path) -> None:
    with pytest.raises(KeyError), alone_in(tmp_path / "new" / "run"):
        raise KeyError
    assert not (tmp_path / "new" / "run").exists()


def test_a_folder_that_vanishes_meanwhile_is_let_go(tmp_path: Path) -> None:
    with alone_in(tmp_path / "run"):
        (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert not (tmp_path / "run").exists()
