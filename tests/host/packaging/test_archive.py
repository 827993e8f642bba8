"""The registry's archive: valid, small, whole without what developers need, and at work in a host of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import checkpoints
from support.locations import REPOSITORY, host_path
from support.registry import packing
from support.server import PACK_FOLDER, ComfyServer
from support.templates import graph

SIDE = 64
MOST_BYTES = 15_000_000
BOXES = json.dumps(
    [
        {"phrase": phrase, "x0": left, "y0": 0.1, "x1": left + 0.4, "y1": 0.9}
        for phrase, left in (("a cat", 0.05), ("a ball", 0.55))
    ]
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packing.copy_of_the_git_files(tmp_path_factory.mktemp("publisher") / "repository")


@pytest.fixture(scope="module")
def archive(source: Path) -> Path:
    return packing.pack(source)


@pytest.fixture(scope="module")
def clean_host(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A server that has nothing of the repository but the unpacked archive."""
    base = tmp_path_factory.mktemp("clean-host")
    packing.unpack(archive, base / "custom_nodes" / PACK_FOLDER)
    server = ComfyServer(base)
    server.add_checkpoint(checkpoints.build("tiny"), "tiny.safetensors")
    server.start()
    yield server
    server.stop()


def test_the_registry_finds_nothing_to_warn_of(source: Path) -> None:
    said = packing.comfy_node("validate", source)
    assert "warning" not in said.lower() and "error" not in said.lower(), said
    assert "validation" in said.lower(), said


def test_a_warning_of_the_registry_would_be_seen(source: Path, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes((source / "pyproject.toml").read_bytes())
    (tmp_path / "requirements.txt").write_bytes((source / "requirements.txt").read_bytes())
    (tmp_path / "bad.py").write_text("answer = eval('1')\n")
    assert "warning" in packing.comfy_node("validate", tmp_path).lower()


def test_the_archive_is_small_and_holds_the_pack_only(archive: Path) -> None:
    assert archive.stat().st_size < MOST_BYTES
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
    for needed in ("__init__.py", "pyproject.toml", "requirements.txt", "LICENSE", "README.md"):
        assert needed in names
    for folder in ("nodes", "compinv_core", "web", "workflows", "subgraphs", "locales"):
        assert any(name.startswith(f"{folder}/") for name in names), folder
    for folder in ("tests", "bench", "miniworld", ".ci", ".venv", ".comfyui"):
        assert not any(name.startswith(f"{folder}/") for name in names), folder


def test_the_second_template_runs_from_the_archive(clean_host: ComfyServer) -> None:
    folder = clean_host.base / "custom_nodes" / PACK_FOLDER
    assert not folder.is_symlink()
    clean_host.pack_import_seconds()
    workflow = json.loads((folder / "workflows" / "02-compose-with-boxes.json").read_text())
    prompt = graph.changed(
        graph.to_prompt(workflow, clean_host.get("/object_info")),
        CheckpointLoaderSimple={"ckpt_name": "tiny.safetensors"},
        PrimitiveInt={"value": SIDE},
        CompInvLayoutFromBoxes={"phrases": "a cat\na ball", "boxes": BOXES},
        CompInvApplyLayoutGuidance={"text": "a cat and a ball"},
        EmptyLatentImage={"batch_size": 1},
        KSampler={"steps": 3},
    )
    result = clean_host.run(prompt)
    assert result.ok, result
    guided = clean_host.images(result, graph.find(prompt, "SaveImage"))[0]
    plain = clean_host.run(graph.changed(prompt, CompInvApplyLayoutGuidance={"strength": 0.0}))
    assert (guided != clean_host.images(plain, graph.find(prompt, "SaveImage"))[0]).any()


def test_the_requirements_move_nothing_of_the_hosts(tmp_path: Path) -> None:
    """Resolve the host's requirements alone, and with ours on top of exactly those: nothing may have to change."""
    alone, both = tmp_path / "alone.txt", tmp_path / "both.txt"
    _resolve([host_path() / "requirements.txt"], alone)
    _resolve([host_path() / "requirements.txt", REPOSITORY / "requirements.txt"], both, "--constraint", str(alone))
    before, after = _pins(alone), _pins(both)
    assert len(before) > 20 and "torch" in before
    assert {name: after.get(name) for name in before} == before


def _resolve(requirements: list[Path], target: Path, *options: str) -> None:
    command = [packing.uv(), "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python", sys.executable]
    constraints = ("--constraint", REPOSITORY / ".ci" / "constraints.txt")
    subprocess.run([*command, *constraints, *options, *requirements, "--output-file", target], check=True)


def _pins(path: Path) -> dict[str, str]:
    return dict(line.split("==") for line in path.read_text().splitlines() if "==" in line)
