"""The rules that keep the mathematics apart from the host."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.locations import REPOSITORY

HOST_MODULES = {
    "comfy",
    "comfy_api",
    "comfy_execution",
    "comfy_extras",
    "execution",
    "folder_paths",
    "latent_preview",
    "node_helpers",
    "nodes",
    "server",
}
CORE = REPOSITORY / "compinv_core"
HOST_LAYER = CORE / "host"
NODES = REPOSITORY / "nodes"


def sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def imported_modules(path: Path) -> Iterator[str]:
    """Absolute names of the modules a file imports, as seen from the repository root."""
    package = path.relative_to(REPOSITORY).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            # In `from .. import x` the imported names may be modules themselves.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_the_rule_reads_relative_imports() -> None:
    file = HOST_LAYER / "family.py"
    assert "compinv_core.errors.UserError" in set(imported_modules(file))


@pytest.mark.parametrize("path", sources(CORE), ids=lambda path: str(path.relative_to(CORE)))
def test_core_never_imports_nodes_nor_the_host(path: Path) -> None:
    names = list(imported_modules(path))
    assert not [name for name in names if name.startswith("compinv_core.nodes") or name.split(".")[0] == "nodes"]
    if HOST_LAYER not in path.parents:
        assert not [name for name in names if name.split(".")[0] in HOST_MODULES]
        assert not [name for name in names if name.startswith("compinv_core.host")]


@pytest.mark.parametrize("path", sources(NODES), ids=lambda path: str(path.relative_to(NODES)))
def test_nodes_reach_the_host_only_through_its_api_and_the_host_layer(path: Path) -> None:
    foreign = {name.split(".")[0] for name in imported_modules(path)} & HOST_MODULES
    assert foreign <= {"comfy_api", "nodes"}  # `nodes` here is our own package


@pytest.mark.parametrize("path", sources(CORE, NODES), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_the_pack_imports_itself_relatively(path: Path) -> None:
    # ComfyUI imports the pack under a name of its own, so an absolute import would load a second copy.
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not [alias for alias in node.names if alias.name.startswith("compinv_core")]
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert not (node.module or "").startswith("compinv_core")


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in sources(CORE, NODES) if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent
