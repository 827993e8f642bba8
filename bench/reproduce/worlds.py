"""Where the pictures come from, and who judges them.

The miniature world with its judge, or a Stable Diffusion of yours with CLIP and a detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from compinv_core.basics.errors import UserError, quoted
from miniworld.laboratory.habits import Habits
from miniworld.laboratory.recipe import GUIDANCE, INVERSION, TUNING
from miniworld.laboratory.things import Thing
from miniworld.laboratory.workbench import Box, Workbench

PHOTO_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
PAPER_PAINTING = {"steps": 50, "cfg": 7.5, "sampler_name": "ddpm", "scheduler": "normal"}
PAPER_GUIDANCE = {"strength": 30.0, "threshold": 0.2, "max_iterations": 5, "guided_steps": 10}


class World(Protocol):
    """What the protocol needs of a world.

    Attributes
    ----------
    things
        The own things by their names.
    nouns
        What things are composed with.
    bench
        Learns and paints.
    training
        Settings of each method's training; ``steps`` among them.
    guidance
        Fields of ``GuidanceConfig``.
    """

    things: dict[str, Thing]
    nouns: tuple[str, ...]
    bench: Workbench
    training: dict[str, dict[str, Any]]
    guidance: dict[str, Any]

    def boxes(self, phrases: Sequence[str]) -> tuple[Box, ...]:
        """Predicted boxes of phrases (Eq. 8)."""
        ...

    def measure(self, pictures: Tensor, own: Thing, other: str, prompt: str) -> list[dict[str, Any]]:
        """Rows of pictures (N, 3, H, W) of an own thing beside another noun; ``prompt`` has class words only."""
        ...


@dataclass(frozen=True)
class Place:
    """Which world, in words that a worker process can be told.

    Attributes
    ----------
    folder
        Where words, pictures and the host's files go.
    checkpoint
        Empty for the miniature world.
    photos
        Folder of own things: ``CLASS/NAME/*.png``.
    clip, detector, predictor
        Names as the nodes know them, below the models of ``folder``.
    choosing
        Take the own things on which settings are chosen, not those that are reported.
    changes
        Names and values of the painting that differ from the world's.
    card
        Compute on a graphics card where there is one.
    """

    folder: str
    checkpoint: str = ""
    photos: str = ""
    clip: str = ""
    detector: str = ""
    predictor: str = ""
    side: int = 512
    class_pictures: int = 100
    choosing: bool = False
    changes: tuple[tuple[str, Any], ...] = ()
    card: bool = True

    @property
    def on_card(self) -> bool:
        """Whether this process computes on a graphics card; asked without touching the host."""
        return self.card and torch.cuda.is_available()

    def open(self) -> World:
        return StableDiffusion(self) if self.checkpoint else MiniatureWorld(self)


class MiniatureWorld:
    """The model that comes along, judged with ground truth."""

    def __init__(self, place: Place) -> None:
        from miniworld.laboratory.models import Laboratory, as_thing
        from miniworld.world.drawing import NOUNS
        from miniworld.world.instances import CHOOSING, REPORTING

        self.things = {each.name: as_thing(each) for each in (CHOOSING if place.choosing else REPORTING)}
        self.nouns = tuple(NOUNS)
        laboratory = Laboratory(Path(place.folder) / "comfyui", card=place.on_card)
        painting = laboratory.habits.painting | dict(place.changes)
        laboratory.habits = replace(laboratory.habits, painting=painting, class_pictures=place.class_pictures)
        self.bench, self._predict = laboratory, laboratory.predicted_boxes
        self.training = {"textual inversion": dict(INVERSION), **{name: dict(each) for name, each in TUNING.items()}}
        self.guidance = dict(GUIDANCE)

    def boxes(self, phrases: Sequence[str]) -> tuple[Box, ...]:
        return self._predict(phrases)

    def measure(self, pictures: Tensor, own: Thing, other: str, prompt: str) -> list[dict[str, Any]]:
        from miniworld.laboratory.judging import judged_rows

        return judged_rows(pictures, own.name, other)


class StableDiffusion:
    """A checkpoint of Stable Diffusion 1, judged by CLIP and, if there is one, a detector."""

    def __init__(self, place: Place) -> None:
        from miniworld.host import start_in_process

        base = (Path(place.folder) / "comfyui").resolve()
        start_in_process(base, place.on_card)
        import comfy.sd

        from compinv_core.host.detectors.loading import load_detector
        from compinv_core.host.layouts.predictor_choice import chosen_predictor
        from compinv_core.host.measures.encoders import chosen_clip
        from compinv_core.learning.settings import InversionConfig
        from compinv_core.learning.tuning_settings import CustomDiffusionConfig, DreamBoothConfig
        from compinv_core.words.nouns import coco80
        from compinv_core.words.sentences import TEMPLATES

        self._side = place.side
        self.things = photographed(Path(place.photos), place.side)
        self.nouns = coco80()
        with torch.inference_mode():
            models = comfy.sd.load_checkpoint_guess_config(
                place.checkpoint, embedding_directory=[str(base / "models" / "embeddings")]
            )[:3]
        with_class = TEMPLATES["object with class"]
        painting = PAPER_PAINTING | dict(place.changes)
        self.bench = Workbench(
            base, models, Habits(place.side, with_class, with_class, self.nouns, painting, place.class_pictures)
        )
        kinds = (InversionConfig, DreamBoothConfig, CustomDiffusionConfig)
        self.training = {kind.method.name: {"steps": kind().steps} for kind in kinds}
        self.guidance = dict(PAPER_GUIDANCE)
        self._clip = chosen_clip(place.clip)
        self._detector = load_detector("detr", place.detector, 0.8) if place.detector else None
        self._predictor = chosen_predictor(place.predictor or "side-by-side")

    def boxes(self, phrases: Sequence[str]) -> tuple[Box, ...]:
        from compinv_core.host.layouts.prediction import predict_layout

        with torch.inference_mode():
            layout, _ = predict_layout(self._predictor, self.bench.clip, tuple(phrases), self._side, self._side)
        return layout.boxes

    def measure(self, pictures: Tensor, own: Thing, other: str, prompt: str) -> list[dict[str, Any]]:
        from compinv_core.measures.evaluation import Question, evaluate

        nouns = (own.noun, other) if self._detector else ()
        report = evaluate(
            [pictures.movedim(1, -1)], Question([own.photos], prompt, nouns), self._clip, (), self._detector
        )
        rows = []
        for row in report.rows:
            measured = {key: row[key] for key in ("text_alignment", "image_alignment")}
            if nouns:
                there = {"own": row["counts"][own.noun] > 0, "composed": row["counts"][other] > 0}
                measured |= {key: int(value) for key, value in there.items()}
                measured |= {"all_there": int(row["all_there"]), "duplicates": int(row["duplicates"] > 0)}
            rows.append(measured)
        return rows


def photographed(folder: Path, side: int) -> dict[str, Thing]:
    """Own things from ``folder/CLASS/NAME/*.png``, cropped to squares; masks are none.

    Raises
    ------
    UserError
        When there are fewer than two, or one has no photo.
    """
    things = {}
    for place in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        files = sorted(file for file in place.iterdir() if file.suffix.lower() in PHOTO_ENDINGS)
        if not files:
            raise UserError(f"{place} has no photo; put at least one PNG or JPEG there, or remove that folder.")
        photos = np.stack([_square(Image.open(file).convert("RGB"), side) for file in files])
        things[place.name] = Thing(place.name, place.parent.name, torch.from_numpy(photos).float() / 255)
    if len(things) < 2:
        raise UserError(
            f"{quoted(folder)} has fewer than two own things; give --photos a folder with photos as CLASS/NAME/*.png, "
            "such as cat/my-cat/1.png."
        )
    return things


def _square(image: Image.Image, side: int) -> np.ndarray:
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    return np.asarray(image.crop((left, top, left + short, top + short)).resize((side, side), Image.Resampling.LANCZOS))
