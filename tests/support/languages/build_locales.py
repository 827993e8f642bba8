"""Writes locales/*/nodeDefs.json from the nodes' own descriptions and the translations beside this file.

Run it after a change of a node's inputs or texts: `python tests/support/languages/build_locales.py`; it says what has
no translation yet. In a translation `<name>` stands for the translated name of an input or output, in quotes. English
names of inputs stay what they are in the files.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support import host
from support.locations import REPOSITORY

LOCALES = REPOSITORY / "locales"
TRANSLATIONS = Path(__file__).parent
LANGUAGES = ("de", "ja", "zh")
_SPECIAL = re.compile(r"[{}|@]")
_REFERENCE = re.compile(r"<(\w+)>")


def schemas() -> list[Any]:
    """Return the schemas of all nodes."""
    return [node.define_schema() for node in host.load_pack().nodes.NODES]


def outputs_of(schema: Any) -> list[tuple[str, str]]:
    """Return name and tooltip of a node's outputs."""
    return [(each.display_name or each.io_type, each.tooltip or "") for each in schema.outputs]


def texts(schema: Any) -> Iterator[str]:
    """Yield what is translated word by word: a node's name, its description, and its tooltips."""
    yield from (schema.display_name, schema.description, *(each.tooltip for each in schema.inputs))
    yield from (tooltip for _, tooltip in outputs_of(schema) if tooltip)


def definitions(name: Callable[[str], str], text: Callable[[str], str]) -> dict[str, Any]:
    """Return the contents of a nodeDefs.json, with names and texts translated."""
    return {
        schema.node_id: {
            "display_name": escaped(text(schema.display_name)),
            "description": escaped(text(schema.description)),
            "inputs": {
                each.id: {"name": escaped(name(each.id)), "tooltip": escaped(text(each.tooltip))}
                for each in schema.inputs
            },
            "outputs": {
                str(index): {"name": escaped(name(output)), **({"tooltip": escaped(text(tip))} if tip else {})}
                for index, (output, tip) in enumerate(outputs_of(schema))
            },
        }
        for schema in schemas()
    }


def escaped(text: str) -> str:
    """Return a text in which the frontend's message format sees nothing special."""
    return _SPECIAL.sub(lambda found: f"{{'{found[0]}'}}", text)


def translation(language: str) -> dict[str, Any]:
    """Return a language's names and texts."""
    return json.loads((TRANSLATIONS / f"{language}.json").read_text())


def files() -> dict[Path, str]:
    """Return every locale file with the text that it has to have.

    Raises
    ------
    KeyError
        For a name or text without a translation.
    """
    contents = {"en": definitions(str, str)}
    for language in LANGUAGES:
        known = translation(language)

        def text(english: str, known: dict[str, Any] = known) -> str:
            return _REFERENCE.sub(lambda found: known["quotes"] % known["names"][found[1]], known["texts"][english])

        contents[language] = definitions(known["names"].__getitem__, text)
    return {
        LOCALES / language / "nodeDefs.json": json.dumps(content, ensure_ascii=False, indent=2) + "\n"
        for language, content in contents.items()
    }


def differences(language: str) -> tuple[list[str], list[str]]:
    """Return the names and texts that a language does not have yet, and those that no node has any more."""
    known = translation(language)
    described = schemas()
    names = {each.id for schema in described for each in schema.inputs}
    names |= {name for schema in described for name, _ in outputs_of(schema)}
    wanted, there = names | {text for schema in described for text in texts(schema)}, {*known["names"], *known["texts"]}
    return sorted(wanted - there), sorted(there - wanted)


def main() -> None:
    """Write the files that differ."""
    for language in LANGUAGES:
        missing, stale = differences(language)
        for kind, found in (("has no translation of", missing), ("translates what no node says", stale)):
            for text in found:
                print(f"{language} {kind}: {text}", file=sys.stderr)
    for path, text in files().items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(path.relative_to(REPOSITORY))


if __name__ == "__main__":
    main()
