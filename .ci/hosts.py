"""Runs the pack on every ComfyUI it is said to work with: `make hosts`, or with versions as arguments.

Each gets an environment of its own in `.hosts/`, in which the pack is installed as the manager does it; nothing that
ComfyUI's own requirements brought may change by that. Then the tests of the loaded pack, of the registry's archive and
of the first templates run there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bootstrap import HOSTS, PYTHON, ROOT, SetupError, find_uv, make_host, run

FOLDER = ROOT / ".hosts"
TEST_PACKAGES = ("aiohttp", "pytest", "pip")
TESTS = ("tests/host/test_pack.py", "tests/host/packaging", "tests/host/templates/test_workflows.py")


def main() -> None:
    """Make each host and run the tests there."""
    if unknown := set(sys.argv[1:]) - set(HOSTS):
        raise SetupError(f"There is no ComfyUI {', '.join(sorted(unknown))} here: choose of {', '.join(HOSTS)}.")
    uv = find_uv()
    for version in sys.argv[1:] or HOSTS:
        print(f"[hosts] ComfyUI {version}", flush=True)
        host, python = FOLDER / version / "comfyui", FOLDER / version / "venv" / "bin" / "python"
        make_host(host, version)
        run([*uv, "venv", "--quiet", "--clear", "--seed", "--python", PYTHON, python.parents[1]])
        install = [*uv, "pip", "install", "--quiet", "--python", python, "--constraint", ROOT / ".ci/constraints.txt"]
        run([*install, "--requirement", host / "requirements.txt", *TEST_PACKAGES])
        before = frozen(python)
        run([python, "-m", "pip", "install", "--quiet", "--requirement", ROOT / "requirements.txt"])
        if moved := before - frozen(python):
            raise SetupError(f"Installing the pack changed what ComfyUI {version} had: {', '.join(sorted(moved))}.")
        print(f"[hosts] the pack's requirements left all {len(before)} packages as they were", flush=True)
        path = f"{os.environ['PATH']}{os.pathsep}{PYTHON.parent}"
        environment = os.environ | {"COMFYUI_PATH": str(host), "PATH": path}
        subprocess.run([python, "-m", "pytest", "-q", *TESTS], cwd=ROOT, env=environment, check=True)


def frozen(python: Path) -> set[str]:
    """Return what an environment holds, a line a package with its version."""
    return set(subprocess.check_output([python, "-m", "pip", "freeze", "--all"], text=True).splitlines())


if __name__ == "__main__":
    try:
        main()
    except SetupError as error:
        sys.exit(f"[hosts] {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"[hosts] this command failed: {' '.join(map(str, error.cmd))}")
