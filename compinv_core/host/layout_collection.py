"""Painting pictures of noun pairs and keeping the boxes that a detector finds in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.sample
import comfy.utils
import torch
from PIL import Image

from .. import logger
from ..anchors import Anchors
from ..atomic_file import replacing
from ..detections import Detection, Detector, require_labels
from ..errors import UserError
from ..layout_dataset import ANNOTATIONS_FILE, LayoutDataset
from ..layout_plan import PlannedImage, batches, choose_pairs, plan_images
from ..layout_store import LayoutStore
from ..words.phrases import fold_case
from .collection_config import PIXELS_PER_CELL, CollectionConfig
from .family import Family
from .fingerprints import model_fingerprint
from .training_inputs import check_autoencoder

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

NODE_NAME = "Collect Layouts"
_PREVIEW_PIXELS = 512

# By folder: its state after this process filled it, and its fingerprint before.
_collected: dict[Path, tuple[str, str]] = {}


def data_set_fingerprint(folder: Path) -> str:
    """Return a text that changes when the data set in a folder is changed by anything but `collect_layouts` here.

    What the host keeps of a collection, and of the training behind it, then stays valid after the collection itself.

    Parameters
    ----------
    folder : Path
        May not exist.

    Returns
    -------
    str
    """
    state = _folder_state(folder)
    after, fingerprint = _collected.get(folder, ("", ""))
    if state == after:
        return fingerprint
    # A folder that was deleted is to be filled again.
    return state or f"deleted after {after}"


def _folder_state(folder: Path) -> str:
    path = folder / ANNOTATIONS_FILE
    if not path.is_file():
        return ""
    facts = path.stat()
    return f"{facts.st_mtime_ns} {facts.st_size}"


def collect_layouts(
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    detector: Detector,
    vocabulary: Anchors,
    config: CollectionConfig,
    folder: Path,
    on_batch: Callable[[LayoutDataset], None] = lambda dataset: None,
) -> LayoutDataset:
    """Paint noun pairs with the host's sampler, find the nouns, and keep pictures and boxes in a folder.

    What the folder has already is not made again. Every picture has a seed of its own, so pictures that were lost in
    an interruption come out the same.

    Parameters
    ----------
    model, clip, vae
        Stable Diffusion 1 family.
    detector : Detector
        Must know at least two nouns of the vocabulary.
    vocabulary : Anchors
    config : CollectionConfig
    folder : Path
    on_batch : callable (LayoutDataset) -> None
        Called after each batch that is safe on disk; may raise to stop.

    Returns
    -------
    LayoutDataset
        With everything that the folder holds.

    Raises
    ------
    UserError
        On inputs that do not go together, before anything is painted.
    """
    config.check()
    check_autoencoder(Family.of(NODE_NAME, model, clip), vae)
    labels = _labels(vocabulary, detector)
    pairs = choose_pairs(tuple(labels), config.pairs, config.seed)
    store = LayoutStore(folder, _settings(model, clip, vae, detector, config, labels, pairs))
    fingerprint = data_set_fingerprint(folder)
    plan = plan_images(pairs, config.images_per_pair, config.seed)
    missing = store.missing(plan)
    if missing:
        logger.info("%s: painting %d of %d pictures.", NODE_NAME, len(missing), len(plan))
    painter = _Painter(model, clip, vae, config)
    bar = comfy.utils.ProgressBar(len(plan))
    done = len(plan) - len(missing)
    for batch in batches(missing, config.batch_size):
        pictures = painter.paint(batch)
        found = [_best(frame, labels, image) for frame, image in zip(detector.detect(pictures), batch, strict=True)]
        previews = [_save(picture, store.image_path(image)) for picture, image in zip(pictures, batch, strict=True)]
        store.add(list(zip(batch, found, strict=True)), (config.width, config.height))
        on_batch(store.dataset())
        for preview in previews:
            done += 1
            bar.update_absolute(done, len(plan), ("JPEG", preview, _PREVIEW_PIXELS))
    _collected[folder] = (_folder_state(folder), fingerprint)
    dataset = store.dataset()
    logger.info(
        "%s: %d pictures of %d pairs, both nouns found in %d of them.",
        NODE_NAME,
        dataset.pictures,
        len(pairs),
        len(dataset.annotations),
    )
    return dataset


def _labels(vocabulary: Anchors, detector: Detector) -> dict[str, str]:
    """Map the nouns that the detector knows to its labels; at least two, of different labels."""
    matched = require_labels(vocabulary.words, detector)
    unknown = [noun for noun in vocabulary.words if noun not in matched]
    if unknown:
        logger.warning("%s: the detector does not know %s; left out.", NODE_NAME, ", ".join(unknown))
    labels = _one_noun_per_label(matched)
    if len(labels) < 2:
        raise UserError(
            f"The detector {detector.name} knows only one noun of the vocabulary ({next(iter(labels))}), and a pair "
            "takes two; choose a `vocabulary` and a `detector` that have more nouns in common."
        )
    return labels


def _one_noun_per_label(matched: dict[str, str]) -> dict[str, str]:
    """Leave out nouns of one label ("cat" and "cats") but its own name or else the first.

    One thing in a picture would count as both of them.
    """
    nouns: dict[str, str] = {}
    for noun, label in matched.items():
        if label not in nouns or fold_case(noun) == fold_case(label):
            nouns[label] = noun
    for noun, label in matched.items():
        if nouns[label] != noun:
            logger.warning(
                "%s: %s and %s are the same to the detector; %s is left out.", NODE_NAME, nouns[label], noun, noun
            )
    return {noun: label for noun, label in matched.items() if nouns[label] == noun}


def _settings(
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    detector: Detector,
    config: CollectionConfig,
    labels: dict[str, str],
    pairs: tuple[tuple[str, str], ...],
) -> dict[str, Any]:
    """Everything that the pictures and boxes depend on."""
    painting = asdict(config)
    for name in ("pairs", "images_per_pair", "batch_size"):
        painting.pop(name)
    prints = model_fingerprint(model, clip, vae)
    prints["text_encoder"] = prints.pop("clip")
    return {
        **painting,
        **prints,
        "detector": detector.name,
        "threshold": detector.threshold,
        "vocabulary": list(labels),
        "pairs": [list(pair) for pair in pairs],
    }


class _Painter:
    """Paints batches of one prompt with the host's own sampler."""

    def __init__(self, model: ModelPatcher, clip: CLIP, vae: VAE, config: CollectionConfig) -> None:
        self._model, self._clip, self._vae, self._config = model, clip, vae, config
        self._negative = self._encode("")
        channels = model.model.latent_format.latent_channels
        size = (config.height // PIXELS_PER_CELL, config.width // PIXELS_PER_CELL)
        self._latent = torch.zeros(1, channels, *size)

    def paint(self, batch: list[PlannedImage]) -> torch.Tensor:
        """Return pictures (B, H, W, 3), float32 in [0, 1], of 8 bits a channel as they will be in their files."""
        config = self._config
        _stop_if_asked()
        with torch.inference_mode():
            noises: list[Any] = [comfy.sample.prepare_noise(self._latent, image.seed) for image in batch]
            noise = torch.cat(noises)
            samples = comfy.sample.sample(
                self._model,
                noise,
                config.steps,
                config.cfg,
                config.sampler_name,
                config.scheduler,
                self._encode(config.template.format(*batch[0].nouns)),
                self._negative,
                self._latent.repeat(len(batch), 1, 1, 1),
                callback=lambda *progress: _stop_if_asked(),
                disable_pbar=True,
                seed=batch[0].seed,
            )
            pixels = (self._vae.decode(samples).clamp(0, 1) * 255).round()
        with torch.inference_mode(False):
            # An ordinary tensor, which detectors may do anything with.
            return pixels.float().cpu().clone() / 255

    def _encode(self, text: str) -> list:
        with torch.inference_mode():
            return self._clip.encode_from_tokens_scheduled(self._clip.tokenize(text))


def _best(
    found: tuple[Detection, ...], labels: dict[str, str], image: PlannedImage
) -> tuple[Detection | None, Detection | None]:
    """Return the most certain detection of each noun of a picture."""
    first, second = (
        max((each for each in found if each.label == labels[noun]), key=lambda each: each.score, default=None)
        for noun in image.nouns
    )
    return first, second


def _save(picture: torch.Tensor, path: Path) -> Image.Image:
    image = Image.fromarray((picture * 255).round().byte().numpy())
    with replacing(path) as temporary:
        image.save(temporary, "PNG")
    return image


def _stop_if_asked() -> None:
    comfy.model_management.throw_exception_if_processing_interrupted()
