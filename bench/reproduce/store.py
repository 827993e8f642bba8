"""Results on disk: one file a block, and the table of all rows. A killed run goes on, and ends in the same bytes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from compinv_core.basics.atomic_file import remove_leftovers, replacing
from compinv_core.basics.errors import UserError, listed

from .protocol import Block

MANIFEST, TABLE = "manifest.json", "rows.csv"
KEYS = ("method", "semantic", "spatial", "masked", "half", "thing", "other", "order", "seed", "picture")
Row = dict[str, Any]


class Store:
    """The folder of one reproduction.

    Raises
    ------
    UserError
        When the folder holds another one.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self.blocks = folder, folder / "blocks"
        self.blocks.mkdir(parents=True, exist_ok=True)
        for each in (folder, self.blocks):
            remove_leftovers(each)
        wanted = json.loads(json.dumps(settings))
        manifest = folder / MANIFEST
        if manifest.exists():
            known = json.loads(manifest.read_text())
            others = sorted(key for key in {*known, *wanted} if known.get(key) != wanted.get(key))
            if others:
                raise UserError(
                    f"{folder} holds a reproduction with another {listed(others)}; choose another --folder, or take "
                    "the same settings."
                )
        _write(manifest, json.dumps(wanted, indent=1, sort_keys=True) + "\n")

    def is_done(self, block: Block) -> bool:
        return self._file(block).exists()

    def keep(self, block: Block, rows: list[Row]) -> None:
        """Write the rows of a block, all at once."""
        _write(self._file(block), json.dumps(rows) + "\n")

    def rows(self, blocks: Iterable[Block]) -> list[Row]:
        """The rows of blocks that are done, in their order."""
        done = (self._file(block) for block in blocks if self.is_done(block))
        return [row for file in done for row in json.loads(file.read_text())]

    def write_table(self, rows: list[Row]) -> Path:
        """Write all rows as CSV, in an order that does not depend on who did them when."""
        columns = list(dict.fromkeys([*KEYS, *(name for row in rows for name in row)]))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: [str(row.get(key, "")) for key in (*KEYS, "variant")]))
        _write(self.folder / TABLE, text.getvalue())
        return self.folder / TABLE

    def _file(self, block: Block) -> Path:
        return self.blocks / f"{block.key}.json"


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)
