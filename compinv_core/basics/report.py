"""What was measured on which pictures, in a form that can be kept: the payload of COMPINV_REPORT."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .atomic_file import replacing
from .names import check_name

_DIGEST_LENGTH = 8


@dataclass(frozen=True)
class Report:
    """Numbers with everything that they depend on. Only what JSON can hold: text, finite numbers, booleans, None,
    sequences, and mappings with text as keys.

    Parameters
    ----------
    kind : str
        What was measured, such as "attention"; letters, digits, "-" and "_". It begins the file's name.
    models : mapping of str to str
        Role to name: "model", "text encoder", "detector" …
    settings : mapping
        Whatever else the numbers depend on.
    summary : mapping
        The numbers over all pictures.
    rows : sequence of mappings
        The numbers of the single pictures, one row each.

    Raises
    ------
    ValueError
        When the name or a value does not fit.
    """

    kind: str
    models: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    prompts: Sequence[str] = ()
    seeds: Sequence[int] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        check_name(self.kind, "kind of report")
        try:
            self.to_json()
        except (TypeError, ValueError) as error:
            raise ValueError(f"The report {self.kind!r} holds a value that JSON cannot: {error}") from error

    def to_json(self) -> str:
        """Return the report as indented JSON that ends in a line break; equal reports give equal text."""
        content = {each.name: getattr(self, each.name) for each in fields(self)}
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"


def write_report(report: Report, folder: Path) -> Path:
    """Write a report as ``KIND-DIGEST.json``.

    The digest is of the content: a report never replaces another one, and the same one has one file.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    """
    text = report.to_json()
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]
    path = folder / f"{report.kind}-{digest}.json"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _plain(value: Any) -> dict[str, Any] | list[Any]:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
