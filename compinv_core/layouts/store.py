"""The folder of a layout data set while it is filled.

A picture's file is written first; it belongs to the data set once the annotations name it, which one rename does for a
whole batch. A file that they do not name is the leftover of an interruption, and is made again from its own seed; so is
a picture whose file is gone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..basics.atomic_file import remove_leftovers, replacing
from ..basics.digests import differing
from ..basics.errors import UserError
from ..detectors.detections import Detection
from .dataset import (
    ANNOTATIONS_FILE,
    FORMAT,
    IMAGE_FOLDER,
    MANIFEST_FILE,
    LayoutDataset,
    checked_settings,
    dataset_from,
    read_json,
)
from .plan import Plan, PlannedImage


class LayoutStore:
    """The folder of a data set while it is filled.

    Parameters
    ----------
    folder : Path
        Made when first written to.
    settings : mapping
        JSON values: everything that the pictures and boxes depend on, except how many there are of a pair.
        ``vocabulary`` and ``pairs`` are lists, ``detector``, ``text_encoder`` and ``template`` are text.

    earlier : callable () -> mapping of str to str
        How earlier versions wrote some of them, so that their data sets are known again.

    Raises
    ------
    UserError
        When the folder holds a data set that was made with other settings, or something that is none. Then it stays as
        it is.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], earlier: Callable[[], Mapping[str, Any]] = dict
    ) -> None:
        self.folder, self._earlier = folder, earlier
        # As JSON gives it back, so that it can be compared.
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))
        self._categories = {noun: index for index, noun in enumerate(self._settings["vocabulary"], start=1)}
        self._images: dict[int, dict[str, Any]] = {}
        self._annotations: list[dict[str, Any]] = []
        # The manifest is written first: annotations without one are of something else.
        if (folder / MANIFEST_FILE).exists() or (folder / ANNOTATIONS_FILE).exists():
            self._check_settings(read_json(folder / MANIFEST_FILE))
        if (folder / ANNOTATIONS_FILE).exists():
            self._take_over(read_json(folder / ANNOTATIONS_FILE))
        remove_leftovers(folder, own=True)
        remove_leftovers(folder / IMAGE_FOLDER, own=True)

    def missing(self, plan: Iterable[PlannedImage]) -> Iterator[PlannedImage]:
        """Yield the pictures of a plan that are not there yet, in the order of the plan."""
        return (image for image in plan if image.image_id not in self._images)

    def count(self, plan: Plan) -> int:
        """Return how many pictures of a plan are there."""
        return sum(image_id <= len(plan) for image_id in self._images)

    def image_path(self, image: PlannedImage) -> Path:
        """Return where the picture belongs."""
        return self.folder / IMAGE_FOLDER / image.file_name

    def forget_lost(self) -> int:
        """Take pictures whose files are gone out of the data set at its end; return how many there were."""
        before = len(self._images)
        self._keep(list(self._images.values()), self._annotations)
        lost = before - len(self._images)
        for folder in (self.folder, self.folder / IMAGE_FOLDER):
            remove_leftovers(folder, own=True, young=True)
        if lost:
            self._write()
        return lost

    def add(
        self, images: Sequence[tuple[PlannedImage, tuple[Detection | None, Detection | None]]], side: tuple[int, int]
    ) -> None:
        """Record pictures whose files have been written, with what was found of each noun in the order of the prompt.

        One rename makes all of them part of the data set. `side` is (width, height) in pixels.
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
        """Return what is there so far."""
        return dataset_from(self.folder, self._settings, self._content())

    def _take_over(self, content: Mapping[str, Any]) -> None:
        """Start from recorded annotations, without the pictures whose files are gone."""
        dataset_from(self.folder, self._settings, content)
        self._keep(content["images"], content["annotations"])

    def _keep(self, images: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]]) -> None:
        files = {f"{IMAGE_FOLDER}/{path.name}" for path in (self.folder / IMAGE_FOLDER).glob("*.png")}
        self._images = {image["id"]: image for image in images if image.get("file_name") in files}
        self._annotations = [row for row in annotations if row["image_id"] in self._images]

    def _content(self) -> dict[str, list]:
        return {
            "images": [self._images[key] for key in sorted(self._images)],
            "annotations": sorted(self._annotations, key=lambda annotation: annotation["id"]),
        }

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
            _write_json(self.folder / MANIFEST_FILE, {"format": FORMAT, "settings": self._settings})
        content = {
            "info": {"description": "Noun pairs, painted and detected by CompInv", "version": FORMAT},
            "licenses": [],
            **self._content(),
            "categories": [
                {"id": number, "name": noun, "supercategory": "thing"} for noun, number in self._categories.items()
            ],
        }
        _write_json(self.folder / ANNOTATIONS_FILE, content)

    def _check_settings(self, manifest: Mapping[str, Any]) -> None:
        others = differing(checked_settings(manifest, self.folder), self._settings, self._earlier)
        if others:
            raise UserError(
                f"The data set {self.folder.name!r} was made with another {' and another '.join(others)}; restore "
                "those inputs, or choose another name for `dataset`."
            )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        # Not indented, which takes several times as long, and this is written after every batch.
        temporary.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
