"""Pictures of a concept's class for the prior loss: the person's own, or made by the model and kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_management
import torch

from ... import logger
from ...basics.atomic_file import remove_leftovers
from ...basics.digests import text_digest
from ...basics.errors import UserError, quoted, remark
from ...learning.concept import Concept
from ...learning.pictures.photos import stack_photos
from ...learning.pictures.sizes import fit_for, fitted
from ...learning.settings import InversionConfig
from ...training.events import Sink, Work
from ..family import Family
from ..painting import Painter, Sampling, read_picture, write_picture
from ..text.encoder import as_conditioning
from ..text.sentences import read_sentence

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

# As in Custom Diffusion's own making of class pictures, with Euler steps in the place of DDIM's.
_SAMPLING = Sampling(50, 6.0)
_BATCH = 4


@dataclass(frozen=True)
class ClassPictures:
    """Which pictures are to be made.

    Attributes
    ----------
    height, width : int
        Pixels, multiples of a latent cell.
    """

    prompt: str
    count: int
    height: int
    width: int
    seed: int

    def description(self) -> str:
        """Return what the pictures depend on beside the models, as text for the run's fingerprint."""
        return (
            f"{self.count} of {self.prompt!r}, {self.width}x{self.height}, seed {self.seed}, "
            f"{_SAMPLING.steps} {_SAMPLING.sampler_name} {_SAMPLING.scheduler} steps, guidance {_SAMPLING.cfg}"
        )

    def folder_name(self, models: Mapping[str, str]) -> str:
        """Return the name of the folder of such pictures; more of the same kind go on where fewer ended."""
        kind = (self.prompt, self.height, self.width, self.seed, _SAMPLING.steps, _SAMPLING.cfg)
        return text_digest(repr((kind, sorted(models.items()))))


def class_sources(
    family: Family, config: InversionConfig, concepts: Sequence[Concept]
) -> tuple[torch.Tensor | ClassPictures, ...]:
    """Say for every checked concept where the pictures of its class come from.

    Returns
    -------
    tuple
        For each concept, pictures (m, H, W, 3) or the wish to make some; empty where there is no prior loss.

    Raises
    ------
    UserError
        When the person's pictures do not go with the photos.
    """
    prompts = class_prompts(config, concepts)
    if not prompts:
        return ()
    return tuple(
        _given(family, concept, config.num_class_images, "" if index == 0 else f" of {concept.name}")
        if concept.class_images
        else ClassPictures(
            prompts[index], config.num_class_images, *family.whole_cells(*concept.picture_size), config.seed
        )
        for index, concept in enumerate(concepts)
    )


def class_prompts(config: InversionConfig, concepts: Sequence[Concept]) -> tuple[str, ...]:
    """Return the prompt of every concept's class: the input class_prompt for the first, else the superclass.

    Empty where there is no prior loss.
    """
    if not config.prior_weight:
        return ()
    return (first_class_prompt(config, concepts), *(concept.superclass for concept in concepts[1:]))


def first_class_prompt(config: InversionConfig, concepts: Sequence[Concept]) -> str:
    """Return the input class_prompt, or the first concept's superclass where it is empty."""
    return " ".join(config.class_prompt.split()) or concepts[0].superclass


def make_class_pictures(
    wanted: ClassPictures, model: ModelPatcher, clip: CLIP, vae: VAE, folder: Path | None, sink: Sink
) -> torch.Tensor:
    """Make pictures of a class with the model, or read those that an earlier call has kept.

    Parameters
    ----------
    folder : Path, optional
        Where every picture is kept as soon as it is made; None keeps none. What is damaged there is made anew.

    Returns
    -------
    Tensor (count, height, width, 3), float32, CPU
        Of 8 bits a channel, whether made now or read.
    """
    files: list[Path | None] = [None] * wanted.count
    if folder is not None:
        remove_leftovers(folder, own=True)
        files = [folder / f"{number:04}.png" for number in range(wanted.count)]
    pictures = [_kept(path, wanted) for path in files]
    missing = sum(picture is None for picture in pictures)
    if missing:
        logger.info("Making %d pictures of the class %s.", missing, quoted(wanted.prompt))
        painter = Painter(model, clip, vae, _SAMPLING, wanted.height, wanted.width)
        positive, negative = _encoded(clip, wanted.prompt), _encoded(clip, "")
        work = Work("painting class pictures", wanted.count, sink)
        for start in range(0, wanted.count, _BATCH):
            batch = range(start, min(start + _BATCH, wanted.count))
            if any(pictures[number] is None for number in batch):
                # A whole batch, also where fewer are wanted, so that every picture is the same whatever their number.
                made = painter.paint_batch(positive, (wanted.seed + start) % 2**64, _BATCH, negative)
                for number, picture in zip(batch, made, strict=False):
                    if pictures[number] is None:
                        pictures[number] = picture
                        if (path := files[number]) is not None:
                            write_picture(path, picture)
            work.report(batch.stop)
    if folder is not None:
        remove_leftovers(folder, own=True, young=True)
    return torch.stack([picture for picture in pictures if picture is not None])


def kept_folder(root: Path, wanted: ClassPictures, models: Mapping[str, str], earlier: Callable[[], Mapping]) -> Path:
    """Return where such pictures are kept; a folder that an earlier version named goes on in use."""
    folder = root / wanted.folder_name(models)
    if not folder.exists() and root.is_dir():
        before = root / wanted.folder_name({**models, **earlier()})
        return before if before.exists() else folder
    return folder


def _given(family: Family, concept: Concept, least: int, owner: str) -> torch.Tensor:
    pictures = stack_photos(concept.class_images or (), f"class_images{owner}")
    height, width = pictures.shape[1:3]
    if not family.size_conditioning and (height, width) != concept.picture_size:
        photo_height, photo_width = concept.picture_size
        raise UserError(
            f"class_images{owner} are {width}x{height} but the images are {photo_width}x{photo_height}; "
            "scale them to the same size with Upscale Image."
        )
    if len(pictures) < least:
        raise UserError(
            f"class_images{owner} holds {len(pictures)} pictures and num_class_images asks for {least}; connect more, "
            "lower num_class_images, or disconnect class_images to have the pictures made."
        )
    if not family.size_conditioning:
        return pictures
    # Of no more pixels than the photos, by which the memory is reckoned.
    photo_height, photo_width = concept.picture_size
    return fitted(pictures, fit_for(height, width, photo_height * photo_width, family.pixels_per_cell))


def _encoded(clip: CLIP, text: str) -> list:
    """Return the conditioning as the training has it, of the first chunk alone."""
    comfy.model_management.load_models_gpu([clip.patcher])
    with torch.inference_mode():
        return as_conditioning(read_sentence(clip, text, "class_prompt").encode(clip))


def _kept(path: Path | None, wanted: ClassPictures) -> torch.Tensor | None:
    """Return a kept picture; None where there is none, or it is damaged or another one."""
    if path is None or not path.is_file():
        return None
    picture = read_picture(path, wanted.height, wanted.width)
    if picture is None:
        remark(f"The class picture {path.name} is damaged or of another size; it is made anew.")
    return picture
