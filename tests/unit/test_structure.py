"""The rules of the house: which room may use which, what a folder and a file may hold."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

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
# From the ground up: a room uses those before it.
ROOMS = (
    "basics",
    "words",
    "boxes",
    "semantic",
    "training",
    "learning",
    "spatial",
    "recording",
    "detectors",
    "layouts",
    "measures",
    "host",
)
HOST_ROOMS = (
    "text",
    "sampling",
    "spatial",
    "recording",
    "learning",
    "semantic",
    "detectors",
    "layouts",
    "measures",
    "graph",
)
CORE = REPOSITORY / "compinv_core"
HOST_LAYER = CORE / "host"
NODES = REPOSITORY / "nodes"
MOST_FILES, MOST_LINES = 12, 300
# The host looks for these side by side.
FLAT_FOLDERS = {"web/docs", "workflows"}


def sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def imported_modules(path: Path) -> Iterator[str]:
    """Absolute names of what a file imports, as seen from the repository root."""
    package = path.relative_to(REPOSITORY).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            # In `from .. import x` the imported names may be modules themselves.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def file_of(name: str) -> Path | None:
    """The file of this repository that an imported name comes from."""
    for module in (name, name.rpartition(".")[0]):
        place = REPOSITORY.joinpath(*module.split("."))
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if module and path.is_file():
                return path
    return None


def room_of(path: Path, home: Path) -> str:
    """The room of a file in a house; empty for a file that stands in no room."""
    parts = path.relative_to(home).parts
    return parts[0] if len(parts) > 1 else ""


def circle_in(graph: dict[Any, set[Any]]) -> list[Any]:
    """Files that import each other in a circle, the first again at the end; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def tracked_folders() -> dict[str, list[Path]]:
    """The folders of the repository with the files that are kept in them."""
    folders: dict[str, list[Path]] = {}
    for top in ("compinv_core", "nodes", "miniworld", "bench", "tests", "web", "docs", "workflows", ".ci"):
        for path in (REPOSITORY / top).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and "run" not in path.parts:
                folders.setdefault(path.parent.relative_to(REPOSITORY).as_posix(), []).append(path)
    return folders


def test_the_rule_reads_relative_imports() -> None:
    assert "compinv_core.basics.errors.UserError" in set(imported_modules(HOST_LAYER / "family.py"))


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


@pytest.mark.parametrize(("home", "rooms"), [(CORE, ROOMS), (HOST_LAYER, HOST_ROOMS)], ids=["core", "host"])
def test_rooms_use_only_the_rooms_below_them(home: Path, rooms: tuple[str, ...]) -> None:
    assert {path.name for path in home.iterdir() if (path / "__init__.py").is_file()} == set(rooms)
    upwards = []
    for path in sources(home):
        own = room_of(path, home)
        for name in imported_modules(path):
            other = file_of(name)
            room = room_of(other, home) if other is not None and home in other.parents else ""
            if own and room and rooms.index(room) > rooms.index(own):
                upwards.append(f"{path.relative_to(home)} imports {other.relative_to(home)}")
    assert not upwards


def test_no_import_goes_in_a_circle() -> None:
    graph = {
        path: {other for name in imported_modules(path) if (other := file_of(name)) not in (None, path)}
        for path in sources(CORE, NODES, REPOSITORY / "miniworld")
    }
    assert circle_in(graph) == []


def test_a_circle_is_found() -> None:
    assert set(circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}


@pytest.mark.parametrize("path", sources(CORE, NODES), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_file_is_about_one_thing(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert text.count("\n") <= MOST_LINES


def test_no_folder_holds_more_than_a_dozen_files() -> None:
    full = {name: len(files) for name, files in tracked_folders().items() if len(files) > MOST_FILES}
    assert {name: count for name, count in full.items() if name not in FLAT_FOLDERS} == {}
