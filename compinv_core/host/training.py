"""Learning a concept on the host's MODEL, CLIP and VAE: from photos to token embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .. import __version__, logger
from ..anchors import REDUCTIONS, Anchors, equivalent_anchor_weight
from ..concept import Concept
from ..embedding_file import MAKER_KEY, anchors_to_text, check_replaceable, write_concept
from ..errors import UserError
from ..inversion import Inversion, InversionConfig, InversionData, Subject
from ..learned_token import LearnedToken
from ..photos import stack_photos
from ..recoding import AnchorRecoder
from ..run_state import RunStore
from ..training_loop import LoopSettings, TrainingHooks, train
from .models import require_sd1
from .progress import PreviewSampler, TrainingProgress, stop_if_asked
from .text_encoder import (
    NearestToken,
    TemplateEncoder,
    check_known_word,
    load_anchors,
    text_encoder_gradients,
    token_embeddings,
    word_token_ids,
)
from .training_inputs import check_autoencoder, checked_masks, encode_photos, run_store
from .training_session import check_trainable, training_session

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

_NODE = "Train Concept"


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
    on_step: Callable[[int, Mapping[str, torch.Tensor]], None] | None = None,
    embedding_path: Path | None = None,
) -> TrainingResult:
    """Learn a concept by textual inversion, with semantic inversion where anchors are given.

    Photos are encoded once, to the mean of the autoencoder's posterior. The model and text encoder of the graph are
    not changed.

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
    require_sd1(_NODE, model=model, clip=clip)
    check_trainable(model)
    check_autoencoder(model, vae)
    photos = stack_photos([images] if isinstance(images, torch.Tensor) else images)
    masks = checked_masks(mask, photos, config)
    _check_words(clip, config)
    if embedding_path is not None:
        check_replaceable(embedding_path)
    dictionary = _dictionary(clip, config, anchors)
    TemplateEncoder(clip, config.sentences, config.num_vectors)
    store = run_store(run_dir, config, (model, clip, vae), (photos, masks, dictionary))
    if store is not None:
        store.check(config.steps, config.resume)

    encoded = encode_photos(model, vae, photos, masks)
    task, history = _run(model, clip, vae, config, encoded, dictionary, store, on_step)
    concept = Concept(
        config.name, config.superclass, task.subjects[0].token.vectors.detach().float().cpu(), _metadata(config, task)
    )
    if embedding_path is not None:
        write_concept(concept, embedding_path)
    return TrainingResult(concept, history["loss"], history)


def _run(
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    config: InversionConfig,
    encoded: tuple[torch.Tensor, torch.Tensor | None],
    dictionary: Anchors | None,
    store: RunStore | None,
    on_step: Callable[[int, Mapping[str, torch.Tensor]], None] | None,
) -> tuple[Inversion, dict[str, list[float]]]:
    """Open the model for gradients, train, and close it again whatever happens."""
    latents, weights = encoded
    shape = (config.batch_size, *latents.shape[1:])
    initial = initial_vectors(clip, config.init_word, config.num_vectors)
    recoder = None
    if dictionary is not None:
        position = dictionary.token_ids.index(word_token_ids(clip, config.superclass))
        recoder = AnchorRecoder(dictionary, position, config.num_vectors, config.recoder_settings(), NearestToken(clip))
        _log_equivalent_weights(config)
    with training_session(model, clip, shape) as (session, session_clip), text_encoder_gradients(session_clip):
        encoder = TemplateEncoder(session_clip, (*config.sentences, config.preview_prompt), config.num_vectors)

        def encode(index: int, vectors: torch.Tensor) -> torch.Tensor:
            return encoder(index, vectors).to(session.device)

        on_device = None if weights is None else weights.to(session.device)
        data = InversionData(latents.to(session.device), on_device)
        token = LearnedToken(initial.to(session.device), recoder, config.reduction, config.trained_vectors)
        task = Inversion(config, [Subject(token, data, encode)], session.num_timesteps, session.denoise)
        progress = _progress(config, task, encoder, (model, clip, vae), shape[1:])

        def after_step(steps_done: int, losses: Mapping[str, torch.Tensor]) -> None:
            if on_step is not None:
                on_step(steps_done, losses)
            progress.update(steps_done)

        settings = LoopSettings(
            config.steps, config.seed, config.save_every, config.resume, session.computes_in_float16
        )
        return task, train(task, settings, store, TrainingHooks(stop_if_asked, after_step))


def initial_vectors(clip: CLIP, word: str, count: int) -> torch.Tensor:
    """Return the start of the learned vectors: the word's tokens, one each, and their mean for every further vector.

    With fewer vectors than tokens, every vector starts at the mean.

    Parameters
    ----------
    clip : CLIP
    word : str
    count : int

    Returns
    -------
    Tensor (count, D), float32, CPU
    """
    tokens = token_embeddings(clip, word_token_ids(clip, word))
    mean = tokens.mean(0, keepdim=True)
    if count < len(tokens):
        return mean.repeat(count, 1)
    return torch.cat([tokens, mean.repeat(count - len(tokens), 1)])


def _progress(
    config: InversionConfig,
    task: Inversion,
    encoder: TemplateEncoder,
    host_objects: tuple[ModelPatcher, CLIP, VAE],
    latent_shape: tuple[int, ...],
) -> TrainingProgress:
    if not config.preview_every:
        return TrainingProgress(config.steps)
    sampler = PreviewSampler(*host_objects, latent_shape, config.seed)

    def preview():
        with torch.no_grad():
            context = encoder(len(config.sentences), task.subjects[0].token.vectors)
        return sampler.render(context)

    return TrainingProgress(config.steps, config.preview_every, preview)


def _check_words(clip: CLIP, config: InversionConfig) -> None:
    check_known_word(clip, config.superclass, "superclass")
    check_known_word(clip, config.init_word, "init_word")


def _dictionary(clip: CLIP, config: InversionConfig, anchors: Anchors | None) -> Anchors | None:
    """Return the anchors with the superclass among them, or None for plain textual inversion."""
    if anchors is None or config.anchor_weight == 0:
        return None
    superclass = load_anchors(clip, [config.superclass])
    if config.preset == "official_2024":
        return superclass
    here = load_anchors(clip, anchors.words[:1]).vectors
    if here.shape != anchors.vectors[:1].shape or not torch.allclose(here, anchors.vectors[:1], atol=1e-3):
        raise UserError(
            "The anchors were loaded with another text encoder; connect the same `clip` to Load Anchors and here."
        )
    return anchors.merged(superclass)


def _log_equivalent_weights(config: InversionConfig) -> None:
    others = [
        f"{equivalent_anchor_weight(config.anchor_weight, config.reduction, reduction):.4g} under {reduction}"
        for reduction in REDUCTIONS
        if reduction != config.reduction
    ]
    logger.info("anchor_weight %g under %s equals %s.", config.anchor_weight, config.reduction, " and ".join(others))


def _metadata(config: InversionConfig, task: Inversion) -> dict[str, str]:
    """Return everything about the making of a concept, as text for the file's header."""
    import comfyui_version

    active = {} if task.subjects[0].token.recoder is None else task.subjects[0].token.recoder.active()
    settings = asdict(config)
    for shown_elsewhere in ("name", "superclass", "resume", "save_every", "preview_every", "preview_prompt"):
        settings.pop(shown_elsewhere)
    return {
        **{key: str(value) for key, value in settings.items()},
        "anchor_weight": str(config.anchor_weight if active else 0.0),
        "anchor_reduction": config.reduction,
        "anchors": anchors_to_text(active),
        "method": "textual inversion" + (" with semantic inversion" if active else ""),
        MAKER_KEY: __version__,
        "comfyui_version": comfyui_version.__version__,
        "torch_version": torch.__version__,
    }
