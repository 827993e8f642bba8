"""Reports hold what JSON can hold, and their files never replace each other."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType

import pytest
import torch

from compinv_core.basics.report import Report, write_report

REPORT = Report(
    "attention",
    models=MappingProxyType({"model": "SD15"}),
    prompts=("a cat and a ball",),
    seeds=(7,),
    summary={"mean": 0.25, "best": None},
    rows=({"image": 0, "phrase": "Kätzchen", "values": (1, 2.5)},),
)


def test_a_written_report_reads_back(tmp_path: Path) -> None:
    path = write_report(REPORT, tmp_path / "new" / "reports")
    assert path.name.startswith("attention-") and path.suffix == ".json"
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "kind": "attention",
        "models": {"model": "SD15"},
        "settings": {},
        "prompts": ["a cat and a ball"],
        "seeds": [7],
        "summary": {"mean": 0.25, "best": None},
        "rows": [{"image": 0, "phrase": "Kätzchen", "values": [1, 2.5]}],
    }


def test_one_content_has_one_file_and_another_content_another(tmp_path: Path) -> None:
    first = write_report(REPORT, tmp_path)
    assert write_report(REPORT, tmp_path) == first
    other = write_report(Report("attention", summary={"mean": 0.5}), tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted({first, other})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor(1.0), {1, 2}])
def test_values_that_json_cannot_hold_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Report("attention", summary={"value": value})


@pytest.mark.parametrize("kind", ["", "../up", "two words"])
def test_a_kind_cannot_leave_the_folder(kind: str) -> None:
    with pytest.raises(ValueError, match="kind of report"):
        Report(kind)
