"""Pictures of noun pairs with the boxes that a detector found in them: what a layout predictor is trained on.

A data set is a folder: ``images/``, ``manifest.json`` (how it is made) and ``annotations.json``, in COCO's format. An
image exists once the annotations name it; a file that they do not name is the leftover of an interruption and is made
again, bit for bit, from its own seed. All numbers follow from the place of an image in the plan, so that a data set
that was interrupted is the same in the end as one that was not.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .atomic_file import replacing
from .detections import Detection
from .errors import UserError
from .layout import Box

MANIFEST_FILE = "manifest.json"
ANNOTATIONS_FILE = "annotations.json"
IMAGE_FOLDER = "images"

_FORMAT = "compinv-layouts-1"

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


@dataclass(frozen=True)
class PlannedImage:
    """One picture to be painted.

    Attributes
    ----------
    image_id : int
        From 1; does not change when more pictures per pair are asked for.
    pair : int
        Index of the pair.
    nouns : tuple of (str, str)
        In the order of the prompt: every second picture of a pair has them swapped.
    seed : int
        In [0, 2^63).
    """

    image_id: int
    pair: int
    nouns: Pair
    seed: int

    @property
    def file_name(self) -> str:
        """Name of the picture's file in `IMAGE_FOLDER`."""
        return f"{self.image_id:06d}.png"


def choose_pairs(vocabulary: Sequence[str], count: int, seed: int) -> tuple[Pair, ...]:
    """Draw different pairs of nouns so that all nouns occur equally often, as far as possible.

    Parameters
    ----------
    vocabulary : sequence of str
        At least two nouns.
    count : int
        Pairs wanted; all there are, where there are fewer.
    seed : int

    Returns
    -------
    tuple of pairs of str
    """
    everything = list(itertools.combinations(vocabulary, 2))
    shuffle = torch.randperm(len(everything), generator=torch.Generator().manual_seed(seed)).tolist()
    left = [everything[index] for index in shuffle]
    used = dict.fromkeys(vocabulary, 0)
    chosen: list[Pair] = []
    while left and len(chosen) < count:
        pair = min(left, key=lambda pair: (used[pair[0]] + used[pair[1]], max(used[pair[0]], used[pair[1]])))
        left.remove(pair)
        chosen.append(pair)
        for noun in pair:
            used[noun] += 1
    return tuple(chosen)


def plan_images(pairs: Sequence[Pair], images_per_pair: int, seed: int) -> list[PlannedImage]:
    """List all pictures, one of every pair before the next of any, with nouns swapped in every second one.

    Parameters
    ----------
    pairs : sequence of pairs of str
    images_per_pair : int
    seed : int

    Returns
    -------
    list of PlannedImage
        In the order of their ids.
    """
    return [
        PlannedImage(
            number * len(pairs) + index + 1,
            index,
            (pair[1], pair[0]) if number % 2 else pair,
            _image_seed(seed, pair, number),
        )
        for number in range(images_per_pair)
        for index, pair in enumerate(pairs)
    ]


def batches(images: Sequence[PlannedImage], batch_size: int) -> Iterator[list[PlannedImage]]:
    """Group pictures of the same prompt, so that each group can be painted at once.

    A group reaches at most ``2 batch_size`` rounds ahead, so pairs stay balanced whenever the work is interrupted.

    Parameters
    ----------
    images : sequence of PlannedImage
        In the order of their ids.
    batch_size : int

    Yields
    ------
    list of PlannedImage
        At least one, at most `batch_size`.
    """
    waiting: dict[Pair, list[PlannedImage]] = {}
    for image in images:
        group = waiting.setdefault(image.nouns, [])
        group.append(image)
        if len(group) == batch_size:
            yield waiting.pop(image.nouns)
    yield from waiting.values()


class LayoutStore:
    """The folder of a data set while it is filled.

    Parameters
    ----------
    folder : Path
        Made when first written to.
    settings : mapping
        JSON values: everything that the pictures and boxes depend on, except how many there are of a pair.
        ``vocabulary`` and ``pairs`` are lists, ``detector``, ``text_encoder`` and ``template`` are text.

    Raises
    ------
    UserError
        When the folder holds a data set that was made with other settings, or something that cannot be read.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        # As JSON gives it back, so that it can be compared.
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))
        self._categories = {noun: index for index, noun in enumerate(self._settings["vocabulary"], start=1)}
        self._images: dict[int, dict[str, Any]] = {}
        self._annotations: list[dict[str, Any]] = []
        if (folder / MANIFEST_FILE).exists():
            self._check_settings(_read_json(folder / MANIFEST_FILE))
        if (folder / ANNOTATIONS_FILE).exists():
            content = _read_json(folder / ANNOTATIONS_FILE)
            self._images = {image["id"]: image for image in content["images"]}
            self._annotations = content["annotations"]

    def missing(self, plan: Sequence[PlannedImage]) -> list[PlannedImage]:
        """Return the pictures of a plan that are not there yet, in the order of the plan.

        Parameters
        ----------
        plan : sequence of PlannedImage

        Returns
        -------
        list of PlannedImage
        """
        return [image for image in plan if image.image_id not in self._images]

    def image_path(self, image: PlannedImage) -> Path:
        """Return where the picture belongs.

        Parameters
        ----------
        image : PlannedImage

        Returns
        -------
        Path
        """
        return self.folder / IMAGE_FOLDER / image.file_name

    def add(
        self, images: Sequence[tuple[PlannedImage, tuple[Detection | None, Detection | None]]], side: tuple[int, int]
    ) -> None:
        """Record pictures whose files have been written; one rename makes all of them part of the data set.

        Parameters
        ----------
        images : sequence of (PlannedImage, (Detection or None, Detection or None))
            What was found of each noun, in the order of the prompt.
        side : tuple of int
            (width, height) of the pictures in pixels.
        """
        template = self._settings["template"]
        for image, found in images:
            self._images[image.image_id] = {
                "id": image.image_id,
                "file_name": f"{IMAGE_FOLDER}/{image.file_name}",
                "width": side[0],
                "height": side[1],
                "caption": template.format(*image.nouns),
                "nouns": list(image.nouns),
                "pair": image.pair,
                "seed": image.seed,
                "complete": None not in found,
            }
            self._annotations += [
                self._annotation(2 * image.image_id - 1 + slot, image, noun, detection, side)
                for slot, (noun, detection) in enumerate(zip(image.nouns, found, strict=True))
                if detection is not None
            ]
        self._write()

    def dataset(self) -> LayoutDataset:
        """Return what is there so far.

        Returns
        -------
        LayoutDataset
        """
        return _dataset(self.folder, self._settings, list(self._images.values()), self._annotations)

    def _annotation(
        self, number: int, image: PlannedImage, noun: str, detection: Detection, side: tuple[int, int]
    ) -> dict[str, Any]:
        x0, y0, x1, y1 = detection.box
        width, height = (x1 - x0) * side[0], (y1 - y0) * side[1]
        return {
            "id": number,
            "image_id": image.image_id,
            "category_id": self._categories[noun],
            "bbox": [x0 * side[0], y0 * side[1], width, height],
            "area": width * height,
            "iscrowd": 0,
            "score": detection.score,
        }

    def _write(self) -> None:
        if not (self.folder / MANIFEST_FILE).exists():
            _write_json(self.folder / MANIFEST_FILE, {"format": _FORMAT, "settings": self._settings})
        content = {
            "info": {"description": "Noun pairs, painted and detected by CompInv", "version": _FORMAT},
            "licenses": [],
            "images": [self._images[key] for key in sorted(self._images)],
            "annotations": sorted(self._annotations, key=lambda annotation: annotation["id"]),
            "categories": [
                {"id": number, "name": noun, "supercategory": "thing"} for noun, number in self._categories.items()
            ],
        }
        _write_json(self.folder / ANNOTATIONS_FILE, content)

    def _check_settings(self, manifest: Mapping[str, Any]) -> None:
        known = _checked_settings(manifest, self.folder)
        names = sorted(set(known) | set(self._settings))
        differing = [name for name in names if known.get(name) != self._settings.get(name)]
        if differing:
            raise UserError(
                f"The data set {self.folder.name!r} was made with another {' and another '.join(differing)}; restore "
                "those inputs, or choose another name for `dataset`."
            )


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
    settings = _checked_settings(_read_json(folder / MANIFEST_FILE), folder)
    content = _read_json(folder / ANNOTATIONS_FILE)
    return _dataset(folder, settings, content["images"], content["annotations"])


def _dataset(
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


def _checked_settings(manifest: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    settings = manifest.get("settings")
    if manifest.get("format") != _FORMAT or not isinstance(settings, dict):
        raise UserError(f"{folder.name}/{MANIFEST_FILE} is not of this pack; choose another name for `dataset`.")
    return settings


def _read_json(path: Path) -> dict[str, Any]:
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


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _image_seed(seed: int, pair: Pair, number: int) -> int:
    text = json.dumps([seed, *pair, number])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
