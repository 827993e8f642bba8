"""Writes the tables of inputs in web/docs/ from the nodes' own descriptions.

Run it after a change of a node's inputs or settings: `python tests/support/build_help.py`. Everything else on the pages
is written by hand.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support import host
from support.locations import REPOSITORY

PAGES = REPOSITORY / "web" / "docs"
_TABLE = re.compile(r"(?<=\n## Inputs\n\n)\|.*?(?=\n(?!\|))", re.DOTALL)


def pages() -> dict[Path, str]:
    """Return every help page with its table as it has to be."""
    return {
        PAGES / f"{schema.node_id}.md": with_table((PAGES / f"{schema.node_id}.md").read_text(), schema)
        for schema in (node.define_schema() for node in host.load_pack().nodes.NODES)
    }


def with_table(page: str, schema: Any) -> str:
    """Return a page with the table of a node's inputs in the place of the one it has."""
    rows = [f"| `{each.id}` | {each.tooltip.replace('|', chr(92) + '|')} |" for each in schema.inputs]
    table = "\n".join(["| Input | Meaning |", "|---|---|", *rows])
    page, replaced = _TABLE.subn(lambda found: table, page, count=1)
    if not replaced:
        raise ValueError(f"The page of {schema.node_id} has no table under ## Inputs.")
    return page


def main() -> None:
    """Write the pages that differ."""
    for path, text in pages().items():
        if path.read_text() != text:
            path.write_text(text)
            print(path.relative_to(REPOSITORY))


if __name__ == "__main__":
    main()
