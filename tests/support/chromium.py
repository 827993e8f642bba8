"""Finds the Chromium that the browser tests drive; as a script, installs Debian's package where that is allowed."""

from __future__ import annotations

import os
import shutil
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
CURE = "apt-get install --yes chromium"


def find() -> str | None:
    """Return the path of a Chromium: COMPINV_CHROMIUM, or the first known name on the PATH."""
    given = os.environ.get("COMPINV_CHROMIUM")
    return given or next(filter(None, map(shutil.which, NAMES)), None)


def install() -> None:
    """Install Debian's package if this process may, or say the one command that would."""
    if find():
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print(f"No Chromium found: the browser tests will be skipped. To enable them, run as root: {CURE}")
        return
    print("No Chromium found: installing Debian's package for the browser tests.", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "--quiet"], [*CURE.split(), "--no-install-recommends", "--quiet"]):
        if subprocess.run(command, env=environment).returncode:
            print(f"`{' '.join(command)}` failed: the browser tests will be skipped. To enable them, run: {CURE}")
            return


if __name__ == "__main__":
    install()
