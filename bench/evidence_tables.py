"""The tables of ``bench.evidence``: means with bootstrap intervals, as Markdown."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from compinv_core.measures.intervals import grouped_interval
from miniworld.laboratory.judging import Judgement
from miniworld.networks.judge import THRESHOLD

Value = Callable[[Judgement], float | None]
COLUMNS: dict[str, Value] = {
    "composed noun": lambda row: None if row.other is None else float(row.other > THRESHOLD),
    "own concept": lambda row: float(row.own > THRESHOLD),
    "all there": lambda row: float(row.both),
    "text alignment": lambda row: row.text_alignment,
    "image alignment": lambda row: row.image_alignment,
    "object alignment": lambda row: row.object_alignment,
}


def read_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def measured(clusters: Collection[list[Judgement]], value: Value) -> str:
    """Mean and interval of one column, with its n where some pictures do not count; a dash where none does."""
    kept = [[v for v in map(value, rows) if v is not None] for rows in clusters]
    interval, total = grouped_interval(kept), sum(map(len, kept))
    if interval is None:
        return "–"
    return str(interval) if total == sum(map(len, clusters)) else f"{interval} ({total})"


def table(file: Path, order: Iterable[str] = ()) -> str:
    """The cells of one experiment as a Markdown table, in the given order whatever was done first."""
    cells: dict[str, dict[tuple[str, ...], list[Judgement]]] = {cell: defaultdict(list) for cell in order}
    for entry in read_rows(file):
        job = entry["job"]
        # Pictures of pretrained nouns depend on nothing in common.
        learned = job["settings"] or [job["other"], job["seed"]]
        words = cells.setdefault(job["cell"], defaultdict(list))
        words[job["instance"], json.dumps(learned)] += [Judgement(**row) for row in entry["rows"]]
    lines = [f"| cell | n | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for cell, words in cells.items():
        if not words:
            continue
        clusters = list(words.values())
        columns = " | ".join(measured(clusters, value) for value in COLUMNS.values())
        lines.append(f"| {cell} | {sum(map(len, clusters))} | {columns} |")
    return "\n".join(lines)


def paired_differences(file: Path, reference: Path) -> str:
    """By how much more often all is there than in another experiment's pictures of the same words, pairs and seeds.

    One line for each cell that both have: mean difference with its 95 % bootstrap interval over learned words.
    """
    there: dict[tuple[str, ...], list[float]] = {}
    for entry in read_rows(reference):
        there[_picture(entry["job"])] = [float(Judgement(**row).both) for row in entry["rows"]]
    cells: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for entry in read_rows(file):
        job = entry["job"]
        if before := there.get(_picture(job)):
            after = [float(Judgement(**row).both) for row in entry["rows"]]
            word = json.dumps([job["instance"], job["settings"]])
            cells[job["cell"]][word] += [b - a for a, b in zip(before, after, strict=True)]
    lines = []
    for cell, words in cells.items():
        interval, total = grouped_interval(list(words.values())), sum(map(len, words.values()))
        lines.append(f"{cell}: {interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}], n = {total}")
    return "\n".join(lines)


def _picture(job: dict[str, Any]) -> tuple[str, ...]:
    return job["cell"], job["instance"], job["other"], str(job["seed"])
