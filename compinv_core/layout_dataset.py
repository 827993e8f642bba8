"""Pictures of noun pairs with the boxes that a detector found in them: what a layout predictor is trained on.

A data set is a folder: ``images/``, ``manifest.json`` (how it is made) and ``annotations.json``, in COCO's format. An
image exists once the annotations name it. `layout_store` fills the folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError
from .layout import Box

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
    folder : Path
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

    Parameters
    ----------
    folder : Path

    Returns
    -------
    LayoutDataset

    Raises
    ------
    UserError
        When there is none in the folder, or it cannot be read.
    """
    if not (folder / MANIFEST_FILE).is_file() or not (folder / ANNOTATIONS_FILE).is_file():
        raise UserError(f"There is no layout data set in {folder.name!r}; make one with Collect Layouts.")
    settings = checked_settings(read_json(folder / MANIFEST_FILE), folder)
    return dataset_from(folder, settings, read_json(folder / ANNOTATIONS_FILE))


def dataset_from(folder: Path, settings: Mapping[str, Any], content: Mapping[str, Any]) -> LayoutDataset:
    """Put a data set together from the content of its files.

    Parameters
    ----------
    folder : Path
    settings : mapping
        Of the manifest.
    content : mapping
        Of the annotations: COCO's ``images`` and ``annotations``.

    Returns
    -------
    LayoutDataset
        In the order of the images' ids.

    Raises
    ------
    UserError
        When they are not as `layout_store` writes them.
    """
    try:
        return _assembled(folder, settings, content["images"], content["annotations"])
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"The data set {folder.name!r} is damaged or not of this pack; move that folder away, or choose another "
            "name for `dataset`."
        ) from error


def _assembled(
    folder: Path, settings: Mapping[str, Any], images: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> LayoutDataset:
    nouns = dict(enumerate(settings["vocabulary"], start=1))
    by_image: dict[int, dict[str, Box]] = {image["id"]: {} for image in images}
    sizes = {image["id"]: (image["width"], image["height"]) for image in images}
    for row in rows:
        (x, y, w, h), (width, height) = row["bbox"], sizes[row["image_id"]]
        box = (x / width, y / height, (x + w) / width, (y + h) / height)
        by_image[row["image_id"]][nouns[row["category_id"]]] = box
    annotations = []
    for image in sorted(images, key=lambda image: image["id"]):
        first, second = image["nouns"]
        found = by_image[image["id"]]
        if first in found and second in found:
            annotations.append(PairLayout((first, second), (found[first], found[second])))
    return LayoutDataset(
        folder,
        settings["text_encoder"],
        settings["detector"],
        settings["template"],
        tuple(settings["vocabulary"]),
        tuple((pair[0], pair[1]) for pair in settings["pairs"]),
        tuple(annotations),
        len(images),
    )


def checked_settings(manifest: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings in a manifest.

    Parameters
    ----------
    manifest : mapping
    folder : Path
        For the sentence.

    Returns
    -------
    dict

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

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict

    Raises
    ------
    UserError
        When it cannot be read or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path.parent.name}/{path.name} cannot be read ({error}); move that folder away or choose another name "
            "for `dataset`."
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path.parent.name}/{path.name} is not of this pack; choose another name for `dataset`.")
    return content
