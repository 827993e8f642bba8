"""Learning a concept by textual inversion on the host's MODEL, CLIP and VAE: from photos to token embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..anchors import Anchors
from ..concept import Concept
from ..embedding_file import check_replaceable, write_concept
from ..inversion_config import InversionConfig
from .concepts import concept_images
from .inversion_run import InversionRun, OnStep

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What `train_concept` returns.

    Attributes
    ----------
    concept : Concept
    losses : list of float
        Total loss of every step, resumed ones included.
    history : dict of str to list of float
        ``loss``, ``reconstruction`` and, with anchors, ``anchor``, per step.
    """

    concept: Concept
    losses: list[float]
    history: dict[str, list[float]]


def train_concept(
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    images: torch.Tensor | Sequence[torch.Tensor],
    config: InversionConfig,
    anchors: Anchors | None = None,
    mask: torch.Tensor | Sequence[torch.Tensor] | None = None,
    run_dir: Path | None = None,
    on_step: OnStep | None = None,
    embedding_path: Path | None = None,
) -> TrainingResult:
    """Learn a concept by textual inversion, with semantic inversion where anchors are given.

    The model and text encoder of the graph are not changed.

    Parameters
    ----------
    model, clip, vae
        Stable Diffusion 1 family.
    images : Tensor (n, H, W, 3) or a sequence of such batches, 0 to 1
        Cropped at the centre to a multiple of 8.
    config : InversionConfig
    anchors : Anchors, optional
        Loaded with the same `clip`. None is plain textual inversion.
    mask : Tensor (n, H, W) or a sequence, optional
        1 where the concept is; weights the reconstruction.
    run_dir : Path, optional
        Folder of the training state; None saves and resumes nothing.
    on_step : callable (steps_done, losses) -> None, optional
        `losses` are tensors on the training device.
    embedding_path : Path, optional
        Where to write the embedding file in the end; None writes none.

    Returns
    -------
    TrainingResult

    Raises
    ------
    UserError
        One sentence on the input that is wrong, before the training starts.
    """
    if embedding_path is not None:
        check_replaceable(embedding_path, config.method)
    run = InversionRun(model, clip, vae, config, [concept_images(config, images, mask)], anchors, run_dir)
    learned = run.learn(lambda weights: None, on_step)
    (concept,) = learned.concepts
    if embedding_path is not None:
        write_concept(concept, embedding_path)
    return TrainingResult(concept, learned.history["loss"], learned.history)
