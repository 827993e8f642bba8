"""Runs the unit tests with the oldest packages that requirements.txt allows, in an environment that is thrown away.

The environment lies over `.venv/`: what the lower bounds bring comes first, and everything else, torch above all, is as
in development. Arguments go to pytest, in the place of tests/unit.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Return pytest's status."""
    oldest = [
        re.sub(r">=", "==", line)
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    with tempfile.TemporaryDirectory(prefix="compinv-oldest-") as name:
        folder = Path(name)
        venv.create(folder, with_pip=True)
        python = folder / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", *oldest], check=True)
        paths = {"base": name, "platbase": name}
        overlay = Path(sysconfig.get_path("purelib", "venv", paths)) / "development.pth"
        overlay.write_text(sysconfig.get_path("purelib") + "\n")
        modules = ("numpy", "sklearn", "safetensors", "transformers")
        versions = f"import {', '.join(modules)}; print({', '.join(f'{name}.__version__' for name in modules)})"
        subprocess.run([python, "-c", versions], check=True)
        return subprocess.run([python, "-m", "pytest", *(sys.argv[1:] or ["tests/unit"])], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
