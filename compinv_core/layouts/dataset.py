"""Pictures of noun pairs with the boxes that a detector found in them: what a layout predictor is trained on.

A data set is a folder: ``images/``, ``manifest.json`` (how it is made) and ``annotations.json``, in COCO's format. An
image exists once the annotations name it. `store` fills the folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..basics.errors import UserError, quoted
from ..basics.json_file import read_json_object
from ..boxes.layout import Box

MANIFEST_FILE = "manifest.json"
ANNOTATIONS_FILE = "annotations.json"
IMAGE_FOLDER = "images"

FORMAT = "compinv-layouts-1"

Pair = tuple[str, str]


@dataclass(frozen=True)
class PairLayout:
    """One picture in which both nouns were found.

    Attributes
    ----------
    nouns : tuple of (str, str)
        In the order of the prompt.
    boxes : tuple of two (x0, y0, x1, y1)
        Fractions of the picture.
    """

    nouns: Pair
    boxes: tuple[Box, Box]


@dataclass(frozen=True)
class LayoutDataset:
    """A data set, as it flows between nodes.

    Attributes
    ----------
    text_encoder : str
        Fingerprint of the text encoder whose model painted the pictures.
    detector : str
        Name of the detector.
    template : str
        The prompt, with ``{}`` in the places of the two nouns.
    vocabulary : tuple of str
        Nouns that the detector knows.
    pairs : tuple of pairs of str
        Each once; both orders were painted.
    annotations : tuple of PairLayout
        One per picture in which both nouns were found.
    pictures : int
        All pictures; those that are not in `annotations` lack a noun.
    """

    folder: Path
    text_encoder: str
    detector: str
    template: str
    vocabulary: tuple[str, ...]
    pairs: tuple[Pair, ...]
    annotations: tuple[PairLayout, ...]
    pictures: int

    @property
    def incomplete(self) -> int:
        """Number of pictures in which a noun is missing."""
        return self.pictures - len(self.annotations)


def read_dataset(folder: Path) -> LayoutDataset:
    """Read a data set, finished or not.

    Raises
    ------
    UserError
        When there is none in the folder, or it cannot be read.
    """
    if not (folder / MANIFEST_FILE).is_file() or not (folder / ANNOTATIONS_FILE).is_file():
        raise UserError(f"There is no layout data set in {quoted(folder.name)}; make one with Collect Layouts.")
    settings = checked_settings(read_json(folder / MANIFEST_FILE), folder)
    return dataset_from(folder, settings, read_json(folder / ANNOTATIONS_FILE))


def dataset_from(folder: Path, settings: Mapping[str, Any], content: Mapping[str, Any]) -> LayoutDataset:
    """Put a data set together from the settings of its manifest and the content of its annotations.

    Returns
    -------
    LayoutDataset
        In the order of the images' ids.

    Raises
    ------
    UserError
        When they are not as `store` writes them.
    """
    try:
        return _assembled(folder, settings, content)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"The data set {quoted(folder.name)} is damaged or not of this pack; move that folder away, or choose "
            "another name for `dataset`."
        ) from error


def _assembled(folder: Path, settings: Mapping[str, Any], content: Mapping[str, Any]) -> LayoutDataset:
    nouns = {number: _text(noun) for number, noun in enumerate(settings["vocabulary"], start=1)}
    images = {_whole(image["id"]): image for image in content["images"]}
    found: dict[int, dict[str, Box]] = {number: {} for number in images}
    for row in content["annotations"]:
        _whole(row["id"])
        image = images[_whole(row["image_id"])]
        x, y, w, h = (_number(value) for value in row["bbox"])
        width, height = _whole(image["width"]), _whole(image["height"])
        found[row["image_id"]][nouns[_whole(row["category_id"])]] = (
            x / width, y / height, (x + w) / width, (y + h) / height,
        )  # fmt: skip
        _number(row["score"])
    annotations = []
    for number in sorted(images):
        first, second = (_text(noun) for noun in images[number]["nouns"])
        if first in found[number] and second in found[number]:
            annotations.append(PairLayout((first, second), (found[number][first], found[number][second])))
    return LayoutDataset(
        folder,
        _text(settings["text_encoder"]),
        _text(settings["detector"]),
        _text(settings["template"]),
        tuple(nouns.values()),
        tuple((_text(first), _text(second)) for first, second in settings["pairs"]),
        tuple(annotations),
        len(images),
    )


def checked_settings(manifest: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings in a manifest; the folder is for the sentence.

    Raises
    ------
    UserError
        When it is no manifest of ours.
    """
    settings = manifest.get("settings")
    if manifest.get("format") != FORMAT or not isinstance(settings, dict):
        raise UserError(f"{folder.name}/{MANIFEST_FILE} is not of this pack; choose another name for `dataset`.")
    return settings


def read_json(path: Path) -> dict[str, Any]:
    """Read one of a data set's files.

    Raises
    ------
    UserError
        When it cannot be read or holds something else.
    """
    try:
        return read_json_object(path)
    except ValueError as error:
        raise UserError(
            f"{path.parent.name}/{path.name} cannot be read ({error}); move that folder away or choose another name "
            "for `dataset`."
        ) from error


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("no whole number")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError("no finite number")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value
