"""The tables of ``bench.evidence``: means with bootstrap intervals, as Markdown."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from miniworld.judge import THRESHOLD
from miniworld.judging import Judgement

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


def interval(clusters: list[list[float]], draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean; pictures of one learned word are drawn together, since they are alike."""
    rng = np.random.default_rng(0)
    sums = np.array([sum(cluster) for cluster in clusters])
    sizes = np.array([len(cluster) for cluster in clusters])
    drawn = rng.integers(len(clusters), size=(draws, len(clusters)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def measured(clusters: Collection[list[Judgement]], value: Value) -> str:
    """Mean and interval of one column, with its n where some pictures do not count; a dash where none does."""
    kept = [[v for v in map(value, rows) if v is not None] for rows in clusters]
    total = sum(map(len, kept))
    if not total:
        return "–"
    low, high = interval([values for values in kept if values])
    text = f"{sum(map(sum, kept)) / total:.2f} [{low:.2f}, {high:.2f}]"
    return text if total == sum(map(len, clusters)) else f"{text} ({total})"


def table(file: Path) -> str:
    """The cells of one experiment as a Markdown table."""
    cells: dict[str, dict[tuple[str, ...], list[Judgement]]] = defaultdict(lambda: defaultdict(list))
    for entry in read_rows(file):
        job = entry["job"]
        # Pictures of pretrained nouns depend on nothing in common.
        learned = job["settings"] or [job["other"], job["seed"]]
        cells[job["cell"]][job["instance"], json.dumps(learned)] += [Judgement(**row) for row in entry["rows"]]
    lines = [f"| cell | n | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for cell, words in cells.items():
        clusters = list(words.values())
        columns = " | ".join(measured(clusters, value) for value in COLUMNS.values())
        lines.append(f"| {cell} | {sum(map(len, clusters))} | {columns} |")
    return "\n".join(lines)
