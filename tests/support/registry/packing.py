"""The archive that a person gets from the registry, made as its publisher does: with comfy-cli, from the git files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from ..locations import REPOSITORY

COMFY_CLI = "comfy-cli==1.23.0"


def uv() -> str:
    """Return the command of the uv that set up the environment."""
    found = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise FileNotFoundError("There is no uv beside this Python; run `make setup`.")
    return found


def copy_of_the_git_files(folder: Path) -> Path:
    """Copy what git keeps, and what it would keep, into a git repository of its own, and return its folder."""
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPOSITORY, text=True
    )
    for name in filter(None, listed.split("\0")):
        # A file that is deleted but not yet committed is still listed; a linked folder is none of the pack's.
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, folder / name)
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def comfy_node(command: str, folder: Path) -> str:
    """Run `comfy node COMMAND` in a folder, in an environment of its own and without questions; return what it says.

    Raises
    ------
    CalledProcessError
        When it fails.
    """
    tool = [uv(), "tool", "run", "--quiet", "--isolated", "--from", COMFY_CLI, "comfy"]
    cache = os.environ.get("UV_CACHE_DIR") or subprocess.check_output([uv(), "cache", "dir"], text=True).strip()
    # Its settings go into a home of its own: a person's are neither read nor written.
    home = folder.parent / "comfy-cli-home"
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [*tool, "--skip-prompt", "--no-enable-telemetry", "node", command],
        cwd=folder,
        env=os.environ | {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "UV_CACHE_DIR": cache, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    ).stdout


def pack(folder: Path) -> Path:
    """Make the archive in a git repository and return its path."""
    comfy_node("pack", folder)
    return folder / "node.zip"


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive as the manager does."""
    with zipfile.ZipFile(archive) as source:
        source.extractall(folder)
