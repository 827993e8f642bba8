"""Table 1 and the ablation as Markdown: means over pictures with intervals that draw whole learned words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from compinv_core.measures.intervals import Interval, grouped_interval

from .protocol import METHODS, NOUN, OWN
from .store import Row

CELLS = ((0, 0, "alone"), (1, 0, "+ semantic"), (0, 1, "+ spatial"), (1, 1, "+ both"))
PAPER_COLUMNS = {"text_alignment": "text", "image_alignment": "image", "composed": "composed concept"}
"""Text alignment, image alignment, and the likelihood of the composed concept."""
MORE_COLUMNS = {
    "all_there": "all there",
    "own": "own",
    "duplicates": "twice",
    "identified": "identified",
    "background": "background copied",
    "attention_ratio": "attention own : other",
}


_FEWEST_WORDS = 3
"""An interval over fewer learned words decides nothing."""


def interval(rows: Sequence[Row], column: str) -> Interval | None:
    """Of a column over rows, by learned words; None where no row has a value."""
    groups: dict[Any, list[float]] = defaultdict(list)
    for row in rows:
        if row.get(column) is not None:
            groups[_word(row)].append(float(row[column]))
    return grouped_interval(list(groups.values()))


def _word(row: Row) -> tuple:
    return row["method"], row["thing"], row["seed"]


def select(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def is_decided(rows: Sequence[Row], method: str) -> bool:
    """Whether the intervals of the plain method and of both cures have nothing in common, in either direction."""
    cells = [select(rows, method=method, half=NOUN, masked=0, semantic=on, spatial=on) for on in (0, 1)]
    if min(len({_word(row) for row in cell}) for cell in cells) < _FEWEST_WORDS:
        return False
    plain, both = (interval(cell, "all_there") for cell in cells)
    return plain is not None and both is not None and plain.is_apart_from(both)


def table_one(rows: Sequence[Row]) -> str:
    """The twelve rows of the paper's Table 1: three methods, four cells, composed with a noun and with an own thing."""
    halves = [(half, title) for half in (NOUN, OWN) for title in PAPER_COLUMNS.values()]
    lines = [
        "| method | cell | " + " | ".join(f"{title}, {half}" for half, title in halves) + " |",
        "|---" * (2 + len(halves)) + "|",
    ]
    for method in METHODS:
        for semantic, spatial, title in CELLS:
            cell = select(rows, method=method, masked=0, semantic=semantic, spatial=spatial)
            cells = [shown(select(cell, half=half), column) for half in (NOUN, OWN) for column in PAPER_COLUMNS]
            lines.append(f"| {method} | {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ablation(rows: Sequence[Row], method: str, half: str = NOUN) -> str:
    """Every cure and combination of one method: semantic, spatial, and masks where they were tried."""
    columns = {**PAPER_COLUMNS, **MORE_COLUMNS}
    lines = ["| cell | n | " + " | ".join(columns.values()) + " |", "|---" * (2 + len(columns)) + "|"]
    for masked in (0, 1):
        for semantic, spatial, title in CELLS:
            cell = select(rows, method=method, half=half, masked=masked, semantic=semantic, spatial=spatial)
            if cell:
                name = f"{'masks, ' if masked else ''}{title}"
                numbers = " | ".join(shown(cell, column) for column in columns)
                lines.append(f"| {name} | {len(cell)} | {numbers} |")
    return "\n".join(lines)


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    """Means of every cell and column, for programs."""
    found: dict[str, Any] = {}
    for method in METHODS:
        for half in (NOUN, OWN):
            for masked in (0, 1):
                for semantic, spatial, title in CELLS:
                    cell = select(rows, method=method, half=half, masked=masked, semantic=semantic, spatial=spatial)
                    if cell:
                        name = f"{method}, {half}{', masks' if masked else ''}, {title}"
                        found[name] = {"pictures": len(cell), **_means(cell)}
    return found


def _means(rows: Sequence[Row]) -> dict[str, list[float]]:
    intervals = {column: interval(rows, column) for column in (*PAPER_COLUMNS, *MORE_COLUMNS)}
    return {
        column: [round(number, 4) for number in (each.mean, each.low, each.high)]
        for column, each in intervals.items()
        if each is not None
    }


def shown(rows: Sequence[Row], column: str) -> str:
    """A column's mean over rows with its interval; a dash where nobody measured it."""
    each = interval(rows, column)
    if each is None:
        return "–"
    # Of one word alone there is no interval.
    return str(each) if len({_word(row) for row in rows}) > 1 else f"{each.mean:.2f}"
