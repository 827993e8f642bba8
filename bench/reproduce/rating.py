"""The rating study of the paper's Fig. 6 as a local page: two pictures of one prompt, which shows it better?

The page is one file with the pictures in it. It asks blind and in random order, keeps the answers in the browser so
that a reload loses nothing, and shows each method's share of preferences with its 95 % interval.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from compinv_core.basics.atomic_file import replacing

from .protocol import METHODS, NOUN, Block

_PAGE = Path(__file__).with_name("rating.html")
_QUESTIONS = 60


def write_rating_page(blocks: Sequence[Block], folder: Path, seed: int = 0) -> Path | None:
    """Write ``rating.html``; None where there is nothing to compare."""
    questions = _questions(blocks, folder)
    if not questions:
        return None
    random.Random(seed).shuffle(questions)
    page = Template(_PAGE.read_text()).substitute(
        questions=json.dumps(questions[:_QUESTIONS]), study=json.dumps(folder.resolve().name)
    )
    with replacing(folder / "rating.html") as temporary:
        temporary.write_text(page)
    return folder / "rating.html"


def _questions(blocks: Sequence[Block], folder: Path) -> list[dict[str, Any]]:
    """Plain method against both cures: the same prompt and seed."""
    questions = []
    for method in METHODS:
        chosen = [b for b in blocks if b.method == method and b.half == NOUN and not b.masked]
        plain, held = ({b.things: b for b in chosen if b.semantic == semantic} for semantic in (False, True))
        for things in plain.keys() & held.keys():
            for file in sorted((folder / "pictures" / plain[things].key).glob("plain_*.png")):
                other = folder / "pictures" / held[things].key / file.name.replace("plain_", "guided_")
                if other.exists():
                    noun = file.stem.split("_")[1]
                    questions.append(
                        {
                            "method": method,
                            "prompt": f"{things[0]} and a {noun}",
                            "photo": _photo(folder, things[0]),
                            "plain": _data(file),
                            "cured": _data(other),
                        }
                    )
    return sorted(questions, key=lambda each: (each["method"], each["prompt"], each["plain"]))


def _photo(folder: Path, thing: str) -> str:
    file = folder / "photos" / f"{thing}.png"
    return _data(file) if file.exists() else ""


def _data(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
