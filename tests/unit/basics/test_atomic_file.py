"""Files are replaced whole; what a killed process left is removed, and nobody else's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compinv_core.basics import atomic_file
from compinv_core.basics.atomic_file import check_writable, remove_leftovers, replacing
from compinv_core.basics.errors import UserError

KILLED = """
import os, sys
from pathlib import Path
from compinv_core.basics.atomic_file import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), 9)
"""


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def leftover(tmp_path: Path) -> Path:
    """The hidden file of a process that was killed while writing."""
    root = str(Path(atomic_file.__file__).parents[2])
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "x.txt")], cwd=root, check=False)
    (left,) = tmp_path.iterdir()
    return left


def test_the_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.txt"
    for text in ("one", "two"):
        with replacing(path) as temporary:
            temporary.write_text(text)
        assert path.read_text() == text
        assert names_in(path.parent) == ["x.txt"]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("old")
    with pytest.raises(KeyError), replacing(tmp_path / "x.txt") as temporary:
        temporary.write_text({"half": "half"}["other"])
    assert (tmp_path / "x.txt").read_text() == "old"
    assert names_in(tmp_path) == ["x.txt"]


def test_what_a_killed_process_left_goes_with_a_later_write(leftover: Path) -> None:
    remove_leftovers(leftover.parent)
    assert leftover.exists()
    a_while_ago = time.time() - 700
    os.utime(leftover, (a_while_ago, a_while_ago))
    with replacing(leftover.parent / "y.txt") as temporary:
        temporary.write_text("y")
    assert names_in(leftover.parent) == ["y.txt"]


def test_what_is_being_written_now_stays(tmp_path: Path) -> None:
    with replacing(tmp_path / "x.txt") as temporary:
        temporary.write_text("x")
        remove_leftovers(tmp_path, own=True, young=True)
        assert temporary.read_text() == "x"


def test_what_a_killed_process_left_goes_at_the_end_of_some_work(leftover: Path) -> None:
    remove_leftovers(leftover.parent, young=True)
    assert names_in(leftover.parent) == []


def test_another_process_that_writes_now_keeps_its_file(tmp_path: Path) -> None:
    others = tmp_path / f".compinv-{atomic_file._MACHINE}-{os.getppid()}-{'0' * 8}-aaaa"
    others.touch()
    remove_leftovers(tmp_path, young=True)
    assert others.exists()


def test_an_earlier_process_of_the_same_number_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / f".compinv-{atomic_file._MACHINE}-{os.getpid()}-{'0' * 8}-aaaa").touch()
    remove_leftovers(tmp_path, young=True)
    assert not names_in(tmp_path)


def test_the_file_of_another_machine_stays_for_a_day(tmp_path: Path) -> None:
    others = tmp_path / f".compinv-{'f' * 8}-1-{'0' * 8}-aaaa"
    others.touch()
    remove_leftovers(tmp_path, young=True)
    assert others.exists()
    day_before = time.time() - 90_000
    os.utime(others, (day_before, day_before))
    remove_leftovers(tmp_path)
    assert not others.exists()


def test_hidden_files_of_others_stay_where_others_write(tmp_path: Path) -> None:
    for name in (".x.17.tmp", ".tmpAbC", ".hidden", "x.tmp", ".compinv-notes"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path)
    assert len(names_in(tmp_path)) == 5
    remove_leftovers(tmp_path, own=True)
    assert names_in(tmp_path) == [".compinv-notes", ".hidden", "x.tmp"]


def test_a_file_where_a_folder_belongs_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file")
    for place in (tmp_path / "folder", tmp_path / "folder" / "deeper"):
        with pytest.raises(UserError, match="Nothing can be written to the folder"):
            check_writable(place)
        with pytest.raises(UserError, match="Nothing can be written to the folder"), replacing(place / "x.txt"):
            pass


def test_a_folder_that_vanishes_meanwhile_is_a_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="Nothing can be written to the folder"),
        replacing(tmp_path / "folder" / "x.txt") as temporary,
    ):
        temporary.parent.rename(tmp_path / "elsewhere")


def test_a_folder_where_the_file_belongs_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.txt").mkdir()
    with pytest.raises(UserError, match="Nothing can be written"), replacing(tmp_path / "x.txt") as temporary:
        temporary.write_text("x")
    assert names_in(tmp_path) == ["x.txt"]


def test_a_folder_that_can_be_written_to_is_left_as_it_is(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "new" / "newer"):
        check_writable(folder)
    assert names_in(tmp_path) == []
