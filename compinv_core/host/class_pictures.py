"""Pictures of a concept's class for the prior loss: the person's own, or made by the model and kept on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.sample
import comfy.utils
import numpy as np
import torch
from PIL import Image

from .. import logger
from ..atomic_file import replacing
from ..basics.digests import text_digest
from ..errors import UserError
from ..inversion_config import InversionConfig
from ..photos import stack_photos
from ..tuning_config import TuningConfig
from .concepts import CheckedConcept
from .progress import stop_if_asked
from .text.sentences import read_sentence

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

# As in Custom Diffusion's own making of class pictures, with Euler steps in the place of DDIM's.
_SAMPLING_STEPS = 50
_GUIDANCE = 6.0
_SAMPLER, _SCHEDULER = "euler", "normal"
_BATCH = 4
_PIXELS_PER_CELL = 8


@dataclass(frozen=True)
class ClassPictures:
    """Which pictures are to be made.

    Attributes
    ----------
    prompt : str
    count : int
    height, width : int
        Pixels, multiples of 8.
    seed : int
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
            f"{_SAMPLING_STEPS} {_SAMPLER} {_SCHEDULER} steps, guidance {_GUIDANCE}"
        )


def class_sources(
    config: InversionConfig, concepts: Sequence[CheckedConcept]
) -> tuple[torch.Tensor | ClassPictures, ...]:
    """Say for every concept where the pictures of its class come from.

    Parameters
    ----------
    config : InversionConfig
    concepts : sequence of CheckedConcept

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
    if not isinstance(config, TuningConfig) or not prompts:
        return ()
    height, width = (side - side % _PIXELS_PER_CELL for side in concepts[0].photos.shape[1:3])
    return tuple(
        _given(concept, config.num_class_images, "" if index == 0 else f" of {concept.name}")
        if concept.class_images
        else ClassPictures(prompts[index], config.num_class_images, height, width, config.seed)
        for index, concept in enumerate(concepts)
    )


def class_prompts(config: InversionConfig, concepts: Sequence[CheckedConcept]) -> tuple[str, ...]:
    """Return the prompt of every concept's class: the input class_prompt for the first, else the superclass.

    Parameters
    ----------
    config : InversionConfig
    concepts : sequence of CheckedConcept

    Returns
    -------
    tuple of str
        Empty where there is no prior loss.
    """
    if not isinstance(config, TuningConfig) or not config.prior_weight:
        return ()
    return (config.class_prompt, *(concept.superclass for concept in concepts[1:]))


def _given(concept: CheckedConcept, least: int, owner: str) -> torch.Tensor:
    pictures = stack_photos(concept.class_images or (), f"class_images{owner}")
    (height, width), (photo_height, photo_width) = pictures.shape[1:3], concept.photos.shape[1:3]
    if (height, width) != (photo_height, photo_width):
        raise UserError(
            f"class_images{owner} are {width}x{height} but the images are {photo_width}x{photo_height}; "
            "scale them to the same size with Upscale Image."
        )
    if len(pictures) < least:
        raise UserError(
            f"class_images{owner} holds {len(pictures)} pictures and num_class_images asks for {least}; connect more, "
            "lower num_class_images, or disconnect class_images to have the pictures made."
        )
    return pictures


def make_class_pictures(
    wanted: ClassPictures, model: ModelPatcher, clip: CLIP, vae: VAE, folder: Path | None, models: Mapping[str, str]
) -> torch.Tensor:
    """Make pictures of a class with the model, or read those that an earlier call has kept.

    Parameters
    ----------
    wanted : ClassPictures
    model, clip, vae
    folder : Path, optional
        Where every picture is kept as soon as it is made, in a folder of its own for each prompt, size and model. None
        keeps none.
    models : mapping of str to str
        Fingerprints of the models.

    Returns
    -------
    Tensor (count, height, width, 3), float32, CPU
        Of 8 bits a channel, whether made now or read.
    """
    files: list[Path | None] = [None] * wanted.count
    if folder is not None:
        # More pictures of the same kind go on where fewer ended, so the count is not part of the name.
        kind = (wanted.prompt, wanted.height, wanted.width, wanted.seed, _SAMPLING_STEPS, _GUIDANCE)
        folder = folder / text_digest(repr((kind, sorted(models.items()))))
        files = [folder / f"{number:04}.png" for number in range(wanted.count)]
    pixels = [_read(path) for path in files]
    missing = sum(picture is None for picture in pixels)
    if missing:
        logger.info("Making %d pictures of the class %r.", missing, wanted.prompt)
        positive, negative = _encoded(clip, wanted.prompt), _encoded(clip, "")
        bar = comfy.utils.ProgressBar(wanted.count)
        for start in range(0, wanted.count, _BATCH):
            stop_if_asked(start)
            batch = range(start, min(start + _BATCH, wanted.count))
            if any(pixels[number] is None for number in batch):
                made = _paint(wanted, model, vae, positive, negative, start)
                for number, picture in zip(batch, made, strict=False):
                    if pixels[number] is None:
                        pixels[number] = picture
                        _write(picture, files[number])
            bar.update_absolute(batch.stop, wanted.count)
    stacked = np.stack([picture for picture in pixels if picture is not None])
    with torch.inference_mode(False):
        return torch.from_numpy(stacked).float().div(255)


def _paint(
    wanted: ClassPictures, model: ModelPatcher, vae: VAE, positive: list, negative: list, start: int
) -> np.ndarray:
    """Return a whole batch, also where fewer are wanted, so that every picture is the same whatever their number."""
    cells = wanted.height // _PIXELS_PER_CELL, wanted.width // _PIXELS_PER_CELL
    latent = torch.zeros(_BATCH, model.model.latent_format.latent_channels, *cells)
    seed = (wanted.seed + start) % 2**64
    with torch.inference_mode():
        samples = comfy.sample.sample(
            model, comfy.sample.prepare_noise(latent, seed), _SAMPLING_STEPS, _GUIDANCE, _SAMPLER, _SCHEDULER,
            positive, negative, latent, disable_pbar=True, seed=seed,
        )  # fmt: skip
        return (vae.decode(samples).clamp(0, 1) * 255).round().byte().cpu().numpy()


def _encoded(clip: CLIP, text: str) -> list:
    """Return the conditioning as the training has it, of the first chunk alone."""
    comfy.model_management.load_models_gpu([clip.patcher])
    with torch.inference_mode():
        return [[read_sentence(clip, text, "class_prompt").encode(clip).cpu(), {}]]


def _read(path: Path | None) -> np.ndarray | None:
    if path is None or not path.is_file():
        return None
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _write(picture: np.ndarray, path: Path | None) -> None:
    if path is not None:
        with replacing(path) as temporary:
            Image.fromarray(picture).save(temporary, "PNG")
