"""Painting pictures of noun pairs and keeping the boxes that a detector finds in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import logger
from ...basics.atomic_file import check_writable
from ...basics.errors import UserError, listed, quoted, remark
from ...basics.settings import fingerprint as fingerprint_of
from ...detectors.detections import Detection, Detector, require_labels
from ...layouts.dataset import ANNOTATIONS_FILE, LayoutDataset
from ...layouts.plan import Plan, PlannedImage, batches, choose_pairs
from ...layouts.store import LayoutStore
from ...semantic.anchors import Anchors
from ...training.events import Work
from ...training.run_folder.one_at_a_time import alone_in
from ...words.phrases import fold_case
from ..family import Family
from ..fingerprints import earlier_fingerprint, model_fingerprint
from ..learning.photos import check_autoencoder
from ..painting import Painter, as_image, write_picture
from ..progress import host_listener
from .collection_config import CollectionConfig

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

NODE_NAME = "Collect Layouts"
# After so many deletions of pictures somebody means it.
_ATTEMPTS = 3

# By folder: its state after this process filled it, and its fingerprint before.
_collected: dict[Path, tuple[str, str]] = {}


def data_set_fingerprint(folder: Path) -> str:
    """Return a text that changes when the data set in a folder is changed by anything but `collect_layouts` here.

    What the host keeps of a collection, and of the training behind it, then stays valid after the collection itself.

    Parameters
    ----------
    folder : Path
        May not exist.
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
    check_autoencoder(Family.of(NODE_NAME, model, clip), vae)
    check_writable(folder)
    with alone_in(folder):
        sink = host_listener()
        labels = _labels(vocabulary, detector)
        planning = Work("planning", 2, sink)
        pairs = choose_pairs(tuple(labels), config.pairs, config.seed)
        planning.report(1)
        models, earlier = model_fingerprint(model, clip, vae), earlier_fingerprint(model, clip, vae)
        settings = _settings(_named(models), detector, config, labels, pairs)
        store = LayoutStore(folder, settings, lambda: _named(earlier()))
        fingerprint = data_set_fingerprint(folder)
        planning.report(2)
        plan = Plan(pairs, config.images_per_pair, config.seed)
        painter = Painter(model, clip, vae, config.sampling, config.height, config.width)
        for _ in range(_ATTEMPTS):
            done = store.count(plan)
            logger.info("%s: painting %d of %d pictures.", NODE_NAME, len(plan) - done, len(plan))
            work = Work("painting", len(plan), sink, done)
            for batch in batches(store.missing(plan), config.batch_size):
                prompt = config.template.format(*batch[0].nouns)
                pictures = painter.paint(painter.encode(prompt), [image.seed for image in batch])
                frames = detector.detect(pictures)
                found = [_best(frame, labels, image) for frame, image in zip(frames, batch, strict=True)]
                for picture, image in zip(pictures, batch, strict=True):
                    write_picture(store.image_path(image), picture)
                store.add(list(zip(batch, found, strict=True)), (config.width, config.height))
                on_batch(store.dataset())
                for picture in pictures:
                    done += 1
                    work.report(done, picture=as_image(picture))
            lost = store.forget_lost()
            if not lost:
                break
            remark(f"{NODE_NAME}: {lost} pictures were deleted meanwhile; they are painted again.")
        else:
            raise UserError(
                f"Pictures of the data set {quoted(folder.name)} are deleted while they are painted; leave its folder "
                "alone, or choose another name for `dataset`."
            )
        _collected[folder] = (_folder_state(folder), fingerprint)
        dataset = store.dataset()
        logger.info(
            "%s: %d pictures of %d pairs, both nouns found in %d of them.",
            NODE_NAME, dataset.pictures, len(pairs), len(dataset.annotations),
        )  # fmt: skip
        return dataset


def _labels(vocabulary: Anchors, detector: Detector) -> dict[str, str]:
    """Map the nouns that the detector knows to its labels; at least two, of different labels."""
    matched = require_labels(vocabulary.words, detector)
    unknown = [noun for noun in vocabulary.words if noun not in matched]
    if unknown:
        remark(f"{NODE_NAME}: the detector does not know {listed(unknown)}; left out.")
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
            remark(f"{NODE_NAME}: {nouns[label]} and {noun} are the same to the detector; {noun} is left out.")
    return {noun: label for noun, label in matched.items() if nouns[label] == noun}


def _named(models: dict[str, str]) -> dict[str, str]:
    """Return fingerprints of models as manifests name them."""
    return {"text_encoder" if name == "clip" else name: text for name, text in models.items()}


def _settings(
    models: dict[str, str],
    detector: Detector,
    config: CollectionConfig,
    labels: dict[str, str],
    pairs: tuple[tuple[str, str], ...],
) -> dict[str, Any]:
    """Everything that the pictures and boxes depend on."""
    painting = {name: getattr(config, name) for name in fingerprint_of(config)}
    return {
        **painting,
        **models,
        "detector": detector.name,
        "threshold": detector.threshold,
        "vocabulary": list(labels),
        "pairs": [list(pair) for pair in pairs],
    }


def _best(
    found: tuple[Detection, ...], labels: dict[str, str], image: PlannedImage
) -> tuple[Detection | None, Detection | None]:
    """Return the most certain detection of each noun of a picture."""
    first, second = (
        max((each for each in found if each.label == labels[noun]), key=lambda each: each.score, default=None)
        for noun in image.nouns
    )
    return first, second
