"""The host's ``BOUNDING_BOX`` values as layouts and detections, and detections as ``BOUNDING_BOX`` values.

They come from a detector, a hand-drawn canvas, or a predicted layout.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..basics.errors import UserError, listed, quoted, remark
from ..boxes.layout import Box, Layout, check_size
from ..words.nouns import same_head, same_noun
from ..words.phrases import check_phrases, same_text, same_words
from .detections import Detection

# Canvas nodes round position and size separately and detectors overshoot a little; more than this is a mistake.
_OVERSHOOT = 0.02


def layout_from_bounding_boxes(
    bboxes: Any, phrases: Sequence[str], width: int, height: int, drawn: Mapping[str, Box] | None = None
) -> Layout:
    """Build a layout from the host's ``BOUNDING_BOX`` values.

    Phrases find their box by label: the same text first, then the same words, then the same noun (as `words.nouns`
    compares them), then a label that ends the phrase or that the phrase ends ("cat" for "my-cat cat", "sports ball" for
    "a ball"). Of several boxes with the label the highest score wins, each box serves one phrase, and labelled boxes
    that no phrase asks for are ignored. The phrases that are left take the boxes without a label, in order.

    Parameters
    ----------
    bboxes : list of list of dict, list of dict, or dict
        ``{x, y, width, height}`` in pixels and optionally ``label`` and ``score``; one inner list per picture, of which
        the first is taken. No box at all gives an empty layout.
    width, height : int
        Size of the picture in pixels.
    drawn : mapping of str to (x0, y0, x1, y1), optional
        Boxes of phrases that count in the place of theirs in `bboxes`, as fractions of the picture.

    Raises
    ------
    UserError
        When a box that is used is malformed, empty or outside the picture, a phrase is repeated or has no box, or a box
        without a label has no phrase.
    """
    check_size(width, height)
    frame, drawn = _first_frame(bboxes), drawn or {}
    phrases = tuple(phrases)
    check_phrases(phrases)
    if not frame and not drawn:
        if phrases:
            remark(
                f"Layout From Boxes: no box has come in for {listed(phrases)}, so the layout is empty; draw boxes, or "
                "lower the detector's `threshold`."
            )
        return Layout((), (), width, height)
    boxes = dict(drawn)
    if not all(phrase in drawn for phrase in phrases):
        chosen = _pair(phrases, [_label(box) for box in frame], [_score(box) for box in frame], drawn)
        found = {phrase: index for phrase, index in chosen.items() if phrase not in drawn}
        boxes |= {phrase: _fractions(frame[index], index + 1, width, height) for phrase, index in found.items()}
    return Layout(phrases, tuple(boxes[phrase] for phrase in phrases), width, height)


def with_descriptions(bboxes: Any, elements: Any) -> Any:
    """Give the boxes of the host's canvas the descriptions that stand on it as labels.

    The canvas hands out boxes without labels, and beside them a list of elements in the same order, each with the
    description that the person sees.

    Parameters
    ----------
    bboxes : list of list of dict, list of dict, or dict
    elements : list of dict, or None
        ``{desc, text, …}`` in the order of the boxes; None leaves the boxes as they are.

    Returns
    -------
    list of dict, or `bboxes`

    Raises
    ------
    UserError
        When there are not as many elements as boxes.
    """
    if elements is None:
        return bboxes
    frame = _first_frame(bboxes)
    if not isinstance(elements, list) or not all(isinstance(element, Mapping) for element in elements):
        raise UserError("`elements` of Layout From Boxes must be those of Create Bounding Boxes; connect that output.")
    if len(elements) != len(frame):
        raise UserError(
            f"Layout From Boxes got {_count(frame, 'box', 'boxes')} and {_count(elements, 'element')}; connect "
            "`bboxes` and `elements` of the same Create Bounding Boxes."
        )
    names = [str(element.get("desc") or element.get("text") or "").strip() for element in elements]
    return [{**box, "label": name} if name else dict(box) for box, name in zip(frame, names, strict=True)]


def layout_to_bounding_boxes(layout: Layout) -> list[list[dict[str, Any]]]:
    """Write a layout as the host's ``BOUNDING_BOX`` values, in whole pixels, as its canvas keeps them.

    Returns
    -------
    list of list of dict
        One inner list of ``{x, y, width, height, label, score, metadata}``; each phrase is the box's label, and the
        description that the canvas shows. The score is 1.
    """
    certain = [Detection(phrase, 1.0, box) for phrase, box in zip(layout.phrases, layout.boxes, strict=True)]
    return detections_to_bounding_boxes([certain], layout.width, layout.height)


def detections_to_bounding_boxes(
    detections: Sequence[Sequence[Detection]], width: int, height: int
) -> list[list[dict[str, Any]]]:
    """Write detections as the host's ``BOUNDING_BOX`` values.

    Parameters
    ----------
    detections : sequence of sequence of Detection
        One inner sequence per picture.
    width, height : int
        Size of the pictures in pixels.

    Returns
    -------
    list of list of dict
        ``{x, y, width, height, label, score, metadata}``, in whole pixels, in the order given; `metadata` makes the
        host's canvas show the label.
    """
    return [[_pixels(detection, width, height) for detection in frame] for frame in detections]


def _pixels(detection: Detection, width: int, height: int) -> dict[str, Any]:
    # Whole pixels: the canvas drops the person's edits when what comes in differs in the last digit.
    x0, y0, x1, y1 = detection.box
    x, y = min(round(x0 * width), width - 1), min(round(y0 * height), height - 1)
    return {
        "x": x,
        "y": y,
        "width": max(1, round(x1 * width) - x),
        "height": max(1, round(y1 * height) - y),
        "label": detection.label,
        "score": detection.score,
        # What the canvas shows and hands on; it drops label and score.
        "metadata": {"type": "obj", "desc": detection.label},
    }


def _score(box: Mapping[str, Any]) -> float:
    score = box.get("score")
    number = 1.0 if score is None else _finite(score)
    if number is None:
        raise UserError(f"A box of `bboxes` has the score {quoted(score)}; give it a number from 0 to 1, or none.")
    return number


def _finite(value: Any) -> float | None:
    """The value as a finite number, or None where it is none."""
    try:
        number = float(value)
    except (OverflowError, TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _first_frame(bboxes: Any) -> list[Mapping[str, Any]]:
    if isinstance(bboxes, Mapping):
        return [bboxes]
    frames = list(bboxes) if isinstance(bboxes, (list, tuple)) else [] if bboxes is None else [bboxes]
    if frames and isinstance(frames[0], (list, tuple)):
        if len(frames) > 1:
            remark(f"Layout From Boxes: boxes of {len(frames)} pictures given, those of the first are used.", "note")
        frames = list(frames[0])
    if not all(isinstance(box, Mapping) for box in frames):
        raise UserError(
            "`bboxes` holds something else than boxes with x, y, width and height in pixels; connect a BOUNDING_BOX "
            "output, such as that of Create Bounding Boxes or Detect."
        )
    return frames


def _fractions(box: Mapping[str, Any], number: int, width: int, height: int) -> Box:
    values = [_finite(box.get(key)) for key in ("x", "y", "width", "height")]
    if None in values:
        raise UserError(
            f"Box {number} of `bboxes` lacks one of the finite numbers x, y, width and height in pixels; draw it "
            "again, or check the node that made it."
        )
    x, y, w, h = (value for value in values if value is not None)
    if w <= 0 or h <= 0:
        raise UserError(f"Box {number} of `bboxes` is empty ({w:g}×{h:g} pixels); draw it larger or remove it.")
    x0, x1 = x / width, (x + w) / width
    y0, y1 = y / height, (y + h) / height
    clipped = (max(x0, 0.0), max(y0, 0.0), min(x1, 1.0), min(y1, 1.0))
    overshoot = max(abs(a - b) for a, b in zip(clipped, (x0, y0, x1, y1), strict=True))
    if overshoot > _OVERSHOOT or clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        raise UserError(
            f"Box {number} of `bboxes` spans x {x:g} to {x + w:g} and y {y:g} to {y + h:g}, outside the "
            f"{width}×{height} picture; move it inside, or set `width` and `height` to the size it was drawn for."
        )
    return clipped


def _label(box: Mapping[str, Any]) -> str:
    metadata = box.get("metadata")
    label = box.get("label") or (metadata.get("label") if isinstance(metadata, Mapping) else None)
    return str(label).strip() if label else ""


def _pair(
    phrases: Sequence[str], labels: Sequence[str], scores: Sequence[float], drawn: Collection[str]
) -> dict[str, int]:
    """Index of each phrase's box; phrases that were `drawn` may have none."""
    best_first = sorted((index for index, label in enumerate(labels) if label), key=lambda index: -scores[index])
    chosen: dict[str, int] = {}
    for matches in (same_text, same_words, same_noun, same_head):
        for phrase in phrases:
            free = (index for index in best_first if index not in chosen.values() and matches(phrase, labels[index]))
            if phrase not in chosen and (index := next(free, None)) is not None:
                chosen[phrase] = index
    left = [phrase for phrase in phrases if phrase not in chosen]
    unlabelled = [index for index, label in enumerate(labels) if not label]
    if len(left) != len(unlabelled):
        left = [phrase for phrase in left if phrase not in drawn]
    if left and not labels:
        raise UserError(f"The phrase {quoted(left[0])} has no box; draw one on the node, or connect `bboxes`.")
    if left and not unlabelled:
        raise UserError(
            f"The phrase {quoted(left[0])} has no box: the labels in `bboxes` are {listed(sorted(set(labels)), True)}; "
            "change the phrase or add a box with its label."
        )
    if len(left) != len(unlabelled):
        named = f" ({listed(left)})" if left else ""
        raise UserError(
            f"Layout From Boxes got {_count(unlabelled, 'box', 'boxes')} without a label and {_count(left, 'phrase')} "
            f"that no label names{named}; label every box, or make these two numbers equal."
        )
    return chosen | dict(zip(left, unlabelled, strict=True))


def _count(items: Sequence[Any], singular: str, plural: str | None = None) -> str:
    return f"{len(items)} {singular if len(items) == 1 else plural or singular + 's'}"
