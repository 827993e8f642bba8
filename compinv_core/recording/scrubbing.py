"""A recorded sampling as a panel shows it: sheets of maps for every step, and the numbers beside them.

Nothing is left to be computed there: a sheet has its colours, and the curves their names and ranges.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..basics.digests import digest, text_digest
from ..basics.line_chart import COLOURS
from ..boxes.places import Place, bounding_box
from .measures import AttentionCurves, mean_map
from .plots import PALETTE
from .record import AttentionRecord

# Browsers draw pictures of up to 16384 pixels a side.
_TALLEST = 8192
_PICTURE_SIDE = 768


def write_scrubber(
    record: AttentionRecord,
    curves: AttentionCurves,
    boxes: Sequence[Place | None],
    image: torch.Tensor | None,
    folder: Path,
) -> Path:
    """Write what the panel shows, and return the file that names the others, all in one folder.

    Its JSON object has ``phrases``, their ``colours`` and ``boxes``; ``steps``, those of the rows of the sheets, of
    ``total``; for each phrase the name of its sheet (``sheets``), with a row for each step and a column for each image,
    of ``cell`` (height, width) pixels each; ``pictures`` to lay under them, if there are any; ``aspect``, width over
    height; and ``curves``, each with ``title``, ``range`` and ``lines`` of ``name``, ``colour``, ``dashed`` and
    ``values``, a list over the steps for each image.

    Parameters
    ----------
    boxes : sequence of Place or None, length P
        Of a soft mask the box around it is shown.
    image : Tensor (B, H, W, 3), in [0, 1], optional
        The finished pictures.
    folder : Path
        Made where it is missing; files of the same content have the same name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Where there are more steps than a sheet has room for, some are left out evenly.
    height = mean_map(record.frames[0].maps).shape[-2]
    frames = record.frames[:: math.ceil(len(record.frames) * height / _TALLEST)]
    maps = torch.stack([mean_map(frame.maps) for frame in frames]).nan_to_num(0.0)
    shown = {
        "phrases": record.phrases,
        "colours": [COLOURS[index % len(COLOURS)] for index in range(len(record.phrases))],
        "boxes": [None if box is None else bounding_box(box) for box in boxes],
        "steps": [frame.step for frame in frames],
        "measured": curves.steps,
        "total": record.steps,
        "images": record.images,
        "cell": tuple(maps.shape[-2:]),
        "aspect": record.latent_width / record.latent_height,
        "sheets": [_written(_sheet(maps[:, :, index]), folder) for index in range(len(record.phrases))],
        "pictures": [] if image is None else [_written(_picture(each), folder) for each in image],
        "curves": list(_curves(record, curves)),
    }
    text = json.dumps(shown, allow_nan=False)
    path = folder / f"attention-{text_digest(text)}.json"
    path.write_text(text, encoding="utf-8")
    return path


def _sheet(maps: torch.Tensor) -> Image.Image:
    """Colour the maps (S, B, H, W) of one phrase by one scale, the steps below each other."""
    low, high = maps.min(), maps.max()
    levels = ((maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny) * 255).round().to(torch.uint8)
    steps, images, height, width = levels.shape
    sheet = Image.fromarray(levels.transpose(1, 2).reshape(steps * height, images * width).contiguous().numpy())
    sheet.putpalette(PALETTE)
    return sheet


def _picture(pixels: torch.Tensor) -> Image.Image:
    bytes_ = (pixels[..., :3].float().cpu().nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
    picture = Image.fromarray(bytes_.numpy())
    picture.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    return picture


def _written(picture: Image.Image, folder: Path) -> str:
    path = folder / f"attention-{digest(torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8))}.png"
    picture.save(path)
    return path.name


def _curves(record: AttentionRecord, curves: AttentionCurves) -> Iterator[dict[str, Any]]:
    if curves.share.isfinite().any():
        lines = [
            _line(name, COLOURS[index % len(COLOURS)], values[..., index], dashed)
            for index, name in enumerate(record.phrases)
            for values, dashed in ((curves.share, False), (curves.share_unguided, True))
        ]
        highest = float(curves.share.nan_to_num(0.0).max())
        yield {"title": "Attention of each phrase", "range": (0.0, highest or 1.0), "lines": list(filter(None, lines))}
    if curves.boxed:
        # The linear loss of Eq. 9; see `measures.box_shares`.
        lines = [
            _line("location loss", "currentColor", 1 - curves.mass.mean(-1), False),
            _line("location loss", "currentColor", 1 - curves.mass_unguided.mean(-1), True),
        ]
        title = "Location loss: share of the attention outside the boxes"
        yield {"title": title, "range": (0.0, 1.0), "lines": list(filter(None, lines))}


def _line(name: str, colour: str, values: torch.Tensor, dashed: bool) -> dict[str, Any] | None:
    """Take a curve (S, B) apart by image; None where nothing of it was measured."""
    if not values.isfinite().any():
        return None
    rows = [[round(value, 5) if math.isfinite(value) else None for value in row] for row in values.T.tolist()]
    return {"name": name, "colour": colour, "dashed": dashed, "values": rows}
