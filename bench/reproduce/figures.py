"""The paper's figures: 1 and 7 (the cells side by side), 10 (two own things together), 2 and 9 (attention)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from compinv_core.basics.atomic_file import replacing
from miniworld.laboratory.contact_sheet import Panel, pixels, stacked

from .protocol import METHODS, NOUN, OWN, PROMPT, Block
from .tables import CELLS
from .work import learned
from .worlds import World

_COLUMNS = 8


def write_figures(world: World, blocks: Sequence[Block], folder: Path) -> list[Path]:
    """Write all figures that the blocks have pictures for."""
    first = [block for block in blocks if block.round == 0 and not block.masked]
    figures = {
        "figure-1": _cells(world, first, folder, NOUN, METHODS[:1]),
        "figure-7": _cells(world, first, folder, NOUN, METHODS),
        "figure-10": _cells(world, first, folder, OWN, METHODS),
    }
    written = []
    for name, panels in figures.items():
        if panels:
            written.append(_save(stacked(panels, _COLUMNS), folder / "figures" / f"{name}.png"))
    words = [block for block in first if block.method == METHODS[0] and block.half == NOUN]
    if words:
        written += _attention(world, words, folder)
    return written


def _cells(world: World, blocks: Iterable[Block], folder: Path, half: str, methods: Sequence[str]) -> list[Panel]:
    """The photos, and a panel for each method and cell with the same seeds."""
    blocks = [block for block in blocks if block.half == half and block.method in methods]
    panels: list[Panel] = []
    for name in dict.fromkeys(name for block in blocks for name in block.things):
        photos = world.things[name].photos[:_COLUMNS]
        panels.append(Panel(f"photos of {name}", "", [pixels(photo) for photo in photos]))
    for method in methods:
        for semantic, spatial, title in CELLS:
            for block in (b for b in blocks if b.method == method and b.semantic == bool(semantic)):
                pictures = _pictures(folder, block, bool(spatial))
                if pictures:
                    beside = " and ".join((block.things[0], *(block.nouns or block.things[1:])))
                    panels.append(Panel(f"{method} {title}", beside, pictures))
    return panels


def _pictures(folder: Path, block: Block, spatial: bool) -> list[np.ndarray]:
    files = sorted((folder / "pictures" / block.key).glob(f"{'guided' if spatial else 'plain'}_*.png"))
    return [np.asarray(Image.open(file)) for file in files[: 2 * _COLUMNS]]


def _attention(world: World, blocks: Sequence[Block], folder: Path) -> list[Path]:
    """Figures 2 and 9 for the pretrained noun, the plain word and the one learned with anchors.

    Over the steps, how much attention each of two phrases has; and where each attends, before and after guidance.
    """
    written = []
    own, other = world.things[blocks[0].things[0]], blocks[0].nouns[0]
    phrases = {"pretrained": own.noun}
    models: dict[str, Any] = {"pretrained": None}
    for block in blocks:
        name = "semantic" if block.semantic else "plain"
        models[name], (phrases[name],) = learned(world, block)
    for name, phrase in phrases.items():
        maps, curves = _recorded(world, PROMPT.format(phrase, other), (phrase, other), models[name])
        written.append(_save(curves, folder / "figures" / f"figure-2-{name}.png"))
        written.append(_save(maps, folder / "figures" / f"figure-9-{name}.png"))
    return written


@torch.inference_mode()
def _recorded(world: World, prompt: str, phrases: tuple[str, ...], model: Any) -> tuple[Image.Image, Image.Image]:
    """Heatmaps and curves of one guided painting."""
    from compinv_core.recording.measures import attention_curves
    from compinv_core.recording.plots import draw_curves, draw_heatmaps

    boxes = world.boxes(phrases)
    record = world.bench.recorded(prompt, phrases, 7, 1, model=model, boxes=boxes, guidance=world.guidance)
    curves = draw_curves(record, attention_curves(record, boxes))
    return Image.fromarray(pixels(draw_heatmaps(record, boxes)[0])), Image.fromarray(pixels(curves[0]))


def _save(image: Image.Image, file: Path) -> Path:
    with replacing(file) as temporary:
        image.save(temporary, "PNG")
    return file
