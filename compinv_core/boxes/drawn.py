"""Boxes that a person drew on a node: its `boxes` input, one box for each phrase at most."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..basics.errors import UserError, listed, quoted
from ..words.phrases import same_text
from .layout import Box, Layout, check_box

CORNERS = ("x0", "y0", "x1", "y1")


def read_drawn(text: str, phrases: Sequence[str], node_name: str) -> dict[str, Box]:
    """Read the boxes that were drawn.

    Parameters
    ----------
    text : str
        A JSON list of ``{"phrase", "x0", "y0", "x1", "y1"}``, in fractions of the picture; empty for none.
    phrases : sequence of str
        Those of the node, which the boxes are for; letter case and spaces do not matter.

    Returns
    -------
    dict of str to (x0, y0, x1, y1)
        By the phrase as `phrases` has it.

    Raises
    ------
    UserError
        When the text is no such list, or a box is outside the picture, belongs to no phrase or to one that has a box.
    """
    drawn: dict[str, Box] = {}
    for entry in _entries(text, node_name):
        written = str(entry["phrase"])
        phrase = next((phrase for phrase in phrases if same_text(phrase, written)), None)
        if phrase is None:
            known = f", which are {listed(phrases, quotes=True)}" if phrases else ""
            raise UserError(
                f"{node_name}: the box of {quoted(written)} in `boxes` belongs to none of the `phrases`{known}; give "
                "it one of them on the node, or delete it."
            )
        if phrase in drawn:
            raise UserError(f"{node_name}: the phrase {quoted(phrase)} has two boxes in `boxes`; delete one of them.")
        numbers = [entry[corner] for corner in CORNERS]
        if not all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in numbers):
            raise UserError(f"{node_name}: the box of {quoted(phrase)} in `boxes` has a corner that is no number.")
        x0, y0, x1, y1 = numbers
        check_box(phrase, (x0, y0, x1, y1))
        drawn[phrase] = (x0, y0, x1, y1)
    return drawn


def with_drawn(layout: Layout, drawn: Mapping[str, Box]) -> Layout:
    """Return a layout with the drawn boxes in the place of its own."""
    both = zip(layout.phrases, layout.boxes, strict=True)
    return replace(layout, boxes=tuple(drawn.get(phrase, box) for phrase, box in both))


def as_drawn(layout: Layout) -> list[dict[str, Any]]:
    """Return a layout's boxes as `read_drawn` has them in its list."""
    both = zip(layout.phrases, layout.boxes, strict=True)
    return [{"phrase": phrase, **dict(zip(CORNERS, box, strict=True))} for phrase, box in both]


def _entries(text: str, node_name: str) -> list[Mapping[str, Any]]:
    if not text.strip():
        return []
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{node_name}: `boxes` is not JSON ({error}); draw the boxes on the node, or empty the field."
        ) from error
    whole = isinstance(entries, list) and all(
        isinstance(entry, dict) and {"phrase", *CORNERS} <= entry.keys() for entry in entries
    )
    if not whole:
        raise UserError(
            f"{node_name}: `boxes` has to be a list of boxes, each with phrase, x0, y0, x1 and y1; draw them on the "
            "node, or empty the field."
        )
    return entries
