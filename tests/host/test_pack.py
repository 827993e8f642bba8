"""ComfyUI loads the pack: without further libraries, whole, and with a help page and a tooltip for everything."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from support.locations import REPOSITORY
from support.server import PACK_FOLDER, ComfyServer

TESTS = REPOSITORY / "tests"
# What workflow files rely on. It may grow: new nodes, and inputs behind those that are there.
INTERFACE = json.loads((TESTS / "host" / "interface.json").read_text())
# Their options are files, or the host's.
OPTIONS_FROM_ELSEWHERE = {
    "vocabulary", "model", "filename", "sampler_name", "scheduler", "clip_model", "image_model", "embedding"
}  # fmt: skip


@pytest.fixture(scope="module")
def nodes(server: ComfyServer) -> dict:
    """What the server says about each of the pack's nodes."""
    everything = server.get("/object_info")
    return {key: info for key, info in everything.items() if info["python_module"] == f"custom_nodes.{PACK_FOLDER}"}


def test_import_brings_in_the_packs_own_modules_and_no_other() -> None:
    # A fresh process with the host loaded as it is when custom nodes are imported. What libraries cost is what makes a
    # pack slow to start; `python -X importtime` says how long the rest takes.
    script = f"""
import json, sys
sys.path.insert(0, {str(TESTS)!r})
from support import host
host.start()
import comfy.samplers, comfy.sd, comfy_api.latest, nodes
before = set(sys.modules)
pack = host.load_pack()
print(json.dumps([pack.__name__, sorted(set(sys.modules) - before)]))
"""
    # The repository root as working directory would put our package `nodes` before the host's module.
    answer = subprocess.run([sys.executable, "-c", script], cwd=TESTS, stdout=subprocess.PIPE, text=True, check=True)
    pack, modules = json.loads(answer.stdout.splitlines()[-1])

    assert pack in modules
    assert {name.split(".")[0] for name in modules} == {pack}


def test_server_reports_that_it_imported_the_pack(server: ComfyServer) -> None:
    assert server.pack_import_seconds() >= 0


def test_import_leaves_no_complaint_in_the_log(server: ComfyServer) -> None:
    # Other tests provoke errors later on; the report of the import times ends the loading of custom nodes.
    loading = server.log.partition("Import times for custom nodes")[0]
    ours = [line for line in loading.lower().splitlines() if "compinv" in line]
    assert not [line for line in ours if any(word in line for word in ("error", "fail", "warn", "unable"))]
    assert "Unable to parse pyproject.toml" not in loading


def described(name: str, spec: list) -> str:
    """One input as a line: name, type or options, default."""
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    if kind == "COMBO" and name not in OPTIONS_FROM_ELSEWHERE:
        kind = "|".join(options["options"])
    return f"{name}: {kind}" + (f" = {options['default']!r}" if "default" in options else "")


def interface_of(nodes: dict) -> dict[str, dict[str, list[str]]]:
    return {
        key: {
            **{
                group: [described(name, spec) for name, spec in info["input"].get(group, {}).items()]
                for group in ("required", "optional")
            },
            "outputs": [f"{name}: {kind}" for name, kind in zip(info["output_name"], info["output"], strict=True)],
        }
        for key, info in nodes.items()
    }


def test_the_interface_is_the_one_that_workflows_were_made_with(nodes: dict) -> None:
    assert interface_of(nodes) == INTERFACE


def test_every_input_has_a_tooltip(nodes: dict) -> None:
    silent = [
        f"{key}.{name}"
        for key, info in nodes.items()
        for group in ("required", "optional")
        for name, (_, *options) in info["input"].get(group, {}).items()
        if not (options and options[0].get("tooltip"))
    ]
    assert not silent


def test_every_node_is_described_and_filed(nodes: dict) -> None:
    for key, info in nodes.items():
        assert info["category"].startswith("compositional inversion"), key
        assert info["description"], key
        assert info["search_aliases"], key


def test_every_node_has_a_help_page_that_names_its_inputs(nodes: dict) -> None:
    for key, info in nodes.items():
        page = (REPOSITORY / "web" / "docs" / f"{key}.md").read_text()
        names = [name for group in ("required", "optional") for name in info["input"].get(group, {})]
        assert not [name for name in names if f"`{name}`" not in page], key


def test_the_tables_of_inputs_are_what_the_nodes_say() -> None:
    from support import build_help

    stale = [path.name for path, text in build_help.pages().items() if path.read_text() != text]
    assert not stale, f"write them with: python tests/support/build_help.py ({', '.join(stale)})"
