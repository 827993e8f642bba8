"""Learning concepts by Custom Diffusion and DreamBooth on the host's MODEL, CLIP and VAE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from ..anchors import Anchors
from ..concept import Concept
from ..concept_images import ConceptImages
from ..embedding_file import check_replaceable, write_concept
from ..lora_file import NETWORK_PREFIX, check_lora_replaceable, full_difference_lora, low_rank_lora, write_lora
from ..tuning_config import CustomDiffusionConfig, DreamBoothConfig, TuningConfig
from .concepts import concept_images
from .inversion_run import InversionRun, Learned, OnStep
from .progress import with_progress
from .trained_weights import TrainedWeights

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

Images = torch.Tensor | Sequence[torch.Tensor]
_Outcome = TypeVar("_Outcome")


@dataclass(frozen=True, eq=False)
class TuningResult:
    """What `train_custom_diffusion` and `train_dreambooth` return.

    Attributes
    ----------
    model : ModelPatcher
        A clone of the model passed in, with what was trained.
    concepts : tuple of Concept
        In the order of training: that of the settings, then the others.
    losses : list of float
        Total loss of every step, resumed ones included.
    history : dict of str to list of float
        ``loss``, ``reconstruction``, ``prior`` and ``anchor``, per step, where they exist.
    lora : dict of str to Tensor
        For the host's LORA_MODEL: the full difference (Custom Diffusion), or its approximation (DreamBooth).
    """

    model: ModelPatcher
    concepts: tuple[Concept, ...]
    losses: list[float]
    history: dict[str, list[float]]
    lora: dict[str, torch.Tensor]

    @property
    def prompt_words(self) -> str:
        """The concepts as they stand best in a prompt: ``embedding:NAME superclass``, joined by ``and``."""
        return " and ".join(f"{concept.prompt_word} {concept.superclass}" for concept in self.concepts)


def train_custom_diffusion(
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    images: Images,
    config: CustomDiffusionConfig,
    anchors: Anchors | None = None,
    mask: Images | None = None,
    more_concepts: ConceptImages | None = None,
    class_images: Images | None = None,
    run_dir: Path | None = None,
    on_step: OnStep | None = None,
    embedding_folder: Path | None = None,
    lora_path: Path | None = None,
) -> TuningResult:
    """Learn concepts by Custom Diffusion: their words, and keys and values of the cross-attention.

    The model and text encoder passed in are not changed. Without a `config.prior_weight` no class pictures are used.

    Parameters
    ----------
    model, clip, vae
        Stable Diffusion 1 family. A model patched by a LoRA is trained as it is patched.
    images : Tensor (n, H, W, 3) or a sequence of such batches, 0 to 1
        Of the concept that `config` names; cropped at the centre to a multiple of 8.
    config : CustomDiffusionConfig
    anchors : Anchors, optional
        Loaded with the same `clip`. None is plain Custom Diffusion.
    mask : Tensor (n, H, W) or a sequence, optional
        1 where the concept is; weights the reconstruction.
    more_concepts : ConceptImages, optional
        Others to be learned together with it, with photos of the same size.
    class_images : Tensor (m, H, W, 3) or a sequence, optional
        Pictures of the first concept's class; None makes them. Those of the others are in `more_concepts`.
    run_dir : Path, optional
        Folder of the training state and class pictures; None saves and resumes nothing.
    on_step : callable (steps_done, losses) -> None, optional
        `losses` are tensors on the training device.
    embedding_folder : Path, optional
        Where to write an embedding file ``NAME.safetensors`` for each concept in the end; None writes none.
    lora_path : Path, optional
        Where to write the full difference of the model; None writes none.

    Returns
    -------
    TuningResult

    Raises
    ------
    UserError
        One sentence on the input that is wrong, before the training starts.
    """
    if lora_path is not None:
        check_lora_replaceable(lora_path)
    run = _prepared(
        (model, clip, vae), config, images, mask, more_concepts, class_images, anchors, run_dir, embedding_folder
    )
    learned = run.learn(TrainedWeights.differences, on_step)
    lora = full_difference_lora(learned.outcome)
    patches = {_network_key(name): ("diff", (difference,)) for name, difference in learned.outcome.items()}
    # The large file first: where there is no room for it, the earlier pair of files stays whole.
    if lora_path is not None:
        write_lora(lora, lora_path, learned.concepts[0].metadata)
    _write_embeddings(learned, embedding_folder)
    return _result(model, patches, learned, lora)


def train_dreambooth(
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    images: Images,
    config: DreamBoothConfig,
    anchors: Anchors | None = None,
    mask: Images | None = None,
    more_concepts: ConceptImages | None = None,
    class_images: Images | None = None,
    run_dir: Path | None = None,
    on_step: OnStep | None = None,
    embedding_folder: Path | None = None,
) -> TuningResult:
    """Learn concepts by DreamBooth: their words, and the whole diffusion model.

    The layers of the text encoder are not trained. The model and text encoder passed in are not changed.

    Parameters
    ----------
    model, clip, vae, images, anchors, mask, more_concepts, class_images, run_dir, on_step, embedding_folder
        As for `train_custom_diffusion`.
    config : DreamBoothConfig

    Returns
    -------
    TuningResult

    Raises
    ------
    UserError
        One sentence on the input that is wrong, before the training starts; also when it does not fit into memory.
    """
    run = _prepared(
        (model, clip, vae), config, images, mask, more_concepts, class_images, anchors, run_dir, embedding_folder
    )

    def finish(weights: TrainedWeights) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        return weights.values(), low_rank_lora(with_progress(weights.differences().items()), config.lora_rank)

    learned = run.learn(finish, on_step)
    values, lora = learned.outcome
    patches = {_network_key(name): ("set", (value,)) for name, value in values.items()}
    _write_embeddings(learned, embedding_folder)
    return _result(model, patches, learned, lora)


def _prepared(
    host_objects: tuple[ModelPatcher, CLIP, VAE],
    config: TuningConfig,
    images: Images,
    mask: Images | None,
    more_concepts: ConceptImages | None,
    class_images: Images | None,
    anchors: Anchors | None,
    run_dir: Path | None,
    embedding_folder: Path | None,
) -> InversionRun:
    first = concept_images(config, images, mask, class_images)
    concepts = [first, *(more_concepts.chain() if more_concepts else ())]
    if embedding_folder is not None:
        for concept in concepts:
            check_replaceable(_embedding_path(embedding_folder, concept.name), config.method)
    return InversionRun(*host_objects, config, concepts, anchors, run_dir)


def _write_embeddings(learned: Learned[_Outcome], folder: Path | None) -> None:
    if folder is not None:
        for concept in learned.concepts:
            write_concept(concept, _embedding_path(folder, concept.name))


def _result(
    model: ModelPatcher, patches: Mapping[str, tuple], learned: Learned[_Outcome], lora: dict[str, torch.Tensor]
) -> TuningResult:
    trained = model.clone()
    trained.add_patches(patches)
    return TuningResult(trained, learned.concepts, learned.history["loss"], learned.history, lora)


def _embedding_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _network_key(name: str) -> str:
    return NETWORK_PREFIX + name
