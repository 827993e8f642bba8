"""What comes with the pack in bytes that nobody reads is what was put there."""

from __future__ import annotations

import hashlib

from support.locations import REPOSITORY

SUMS = REPOSITORY / "SHA256SUMS"
ENDINGS = {".safetensors", ".pt", ".png", ".jpg"}
FOLDERS = ("bench", "compinv_core", "docs", "miniworld", "nodes", "tests", "web", "workflows")


def test_every_binary_file_has_its_hash_and_no_other() -> None:
    written = dict(reversed(line.split("  ", 1)) for line in SUMS.read_text().splitlines())
    found = {
        path.relative_to(REPOSITORY).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in FOLDERS
        for path in (REPOSITORY / folder).rglob("*")
        if path.suffix in ENDINGS and "run" not in path.relative_to(REPOSITORY).parts
    }
    changed = {name for name in written.keys() | found.keys() if written.get(name) != found.get(name)}
    assert not changed, f"{changed}: `make sums` writes the hashes of files that were changed on purpose"
