"""One training from the host's objects to what was learned, the same for all methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from PIL import Image

from .. import logger
from ..anchors import Anchors
from ..basics.digests import digest
from ..concept import Concept
from ..concept_images import ConceptImages
from ..inversion import ClassData, Inversion, InversionConfig, InversionData, Subject
from ..optimizers import check_optimizer
from ..run_state import RunStore
from ..training_loop import TrainingHooks, train
from ..tuning_config import TuningConfig
from .class_pictures import ClassPictures, class_prompts, class_sources, make_class_pictures
from .concepts import check_concepts, learned_concept, learned_token, log_equivalent_weights
from .family import Family
from .memory import check_memory
from .progress import PreviewSampler, TrainingProgress, stop_if_asked
from .text.encoder import text_encoder_gradients
from .text.sentences import TemplateEncoder, read_sentence
from .trained_weights import TrainedWeights
from .training_inputs import check_autoencoder, encode_photos, model_fingerprint
from .training_session import DiffusionSession, check_trainable, training_session

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

OnStep = Callable[[int, Mapping[str, torch.Tensor]], None]
Outcome = TypeVar("Outcome")

_PIXELS_PER_CELL = 8
_CLASS_FOLDER = "class_images"


@dataclass(frozen=True, eq=False)
class Learned(Generic[Outcome]):
    """What a training gives.

    Attributes
    ----------
    concepts : tuple of Concept
    history : dict of str to list of float
        ``loss`` and its parts, per step.
    outcome
        What was made of the trained weights.
    """

    concepts: tuple[Concept, ...]
    history: dict[str, list[float]]
    outcome: Outcome


class InversionRun:
    """A training that is checked when made, and started by `learn`.

    Parameters
    ----------
    model, clip, vae
        Stable Diffusion 1 family; not changed.
    config : InversionConfig
        Of the method.
    concepts : sequence of ConceptImages
        To be learned together; the first is the one that `config` names.
    anchors : Anchors, optional
        Loaded with the same `clip`. None holds the words by nothing.
    run_dir : Path, optional
        Folder of the training state; None saves and resumes nothing.

    Raises
    ------
    UserError
        One sentence on the input that is wrong.
    """

    def __init__(
        self,
        model: ModelPatcher,
        clip: CLIP,
        vae: VAE,
        config: InversionConfig,
        concepts: Sequence[ConceptImages],
        anchors: Anchors | None = None,
        run_dir: Path | None = None,
    ) -> None:
        Family.of(config.node_name, model, clip)
        check_trainable(model)
        check_autoencoder(model, vae)
        self._model, self._clip, self._vae, self._config = model, clip, vae, config
        self._tuning = config if isinstance(config, TuningConfig) else None
        self._concepts = check_concepts(clip, config, concepts, anchors)
        self._run_dir = run_dir
        self._class_sources = class_sources(config, self._concepts)
        self._class_sentences = [read_sentence(clip, prompt, "class_prompt")
                                 for prompt in class_prompts(config, self._concepts)]  # fmt: skip
        self._store, done = None, None
        self._models = {} if run_dir is None else model_fingerprint(model, clip, vae)
        if run_dir is not None:
            self._store = RunStore(run_dir, self._fingerprint(), self._summary())
            done = self._store.check(config.steps, config.resume)
        if self._tuning is not None:
            check_optimizer(self._tuning.optimizer, model.load_device)
            # A finished run is only read back.
            if done != config.steps:
                memory = check_memory(model, clip, self._tuning, self._batch_shape())
                if self._store is not None:
                    self._store.check_room(memory.state_file, continues=done is not None)
        self._patched = bool(model.patches or model.injections)
        if self._patched:
            what = "the patched model is trained, and the result belongs on top of the same patches"
            if self._tuning is None:
                what = "the word is learned for the patched model, which is not changed"
            logger.warning("%s: the model is patched, by a LoRA for example; %s.", config.node_name, what)

    def learn(self, finish: Callable[[TrainedWeights], Outcome], on_step: OnStep | None = None) -> Learned[Outcome]:
        """Train to the last step, continuing a saved run where there is one.

        Photos are encoded once, to the mean of the autoencoder's posterior.

        Parameters
        ----------
        finish : callable
            Makes the outcome of the trained weights, while the model is still open.
        on_step : callable (steps_done, losses) -> None, optional
            `losses` are tensors on the training device.

        Returns
        -------
        Learned
        """
        photos = [encode_photos(self._model, self._vae, c.photos, c.masks) for c in self._concepts]
        classes = [encode_photos(self._model, self._vae, pixels, None)[0] for pixels in self._class_pixels()]
        if any(concept.dictionary is not None for concept in self._concepts):
            log_equivalent_weights(self._config)
        opened = training_session(
            self._model, self._clip, self._batch_shape(), self._config.trains_weight, self._checkpointing()
        )
        with opened as (session, clip), text_encoder_gradients(clip):
            subjects = self._subjects(session, clip, photos, classes)
            task = Inversion(
                self._config,
                subjects,
                session.num_timesteps,
                session.denoise,
                session.weights.parameters,
                self._tuning.prior_weight if self._tuning is not None else 0.0,
            )
            progress = self._progress(session, clip, subjects[0])

            def after_step(steps_done: int, losses: Mapping[str, torch.Tensor]) -> None:
                if on_step is not None:
                    on_step(steps_done, losses)
                progress.update(steps_done)

            settings = self._config.loop_settings(session.computes_in_float16)
            history = train(task, settings, self._store, TrainingHooks(stop_if_asked, after_step))
            learned = tuple(
                learned_concept(self._config, concept, subject.token, self._patched)
                for concept, subject in zip(self._concepts, subjects, strict=True)
            )
            return Learned(learned, history, finish(session.weights))

    def _subjects(
        self,
        session: DiffusionSession,
        clip: CLIP,
        photos: Sequence[tuple[torch.Tensor, torch.Tensor | None]],
        classes: Sequence[torch.Tensor],
    ) -> list[Subject]:
        subjects = []
        for index, (concept, (latents, masks)) in enumerate(zip(self._concepts, photos, strict=True)):
            encoder = TemplateEncoder(clip, self._config.sentences, concept.num_vectors, concept.superclass)
            pictures = None
            if classes:
                with torch.no_grad():
                    context = self._class_sentences[index].encode(clip).to(session.device)
                pictures = ClassData(classes[index].to(session.device), context)
            token = learned_token(self._clip, self._config, concept, session.device)
            data = InversionData(latents.to(session.device), None if masks is None else masks.to(session.device))
            subjects.append(Subject(token, data, _to_device(encoder, session.device), pictures))
        return subjects

    def _progress(self, session: DiffusionSession, clip: CLIP, subject: Subject) -> TrainingProgress:
        config, concept = self._config, self._concepts[0]
        if not config.preview_every:
            return TrainingProgress(config.steps)
        # The session's own model, whose trained weights the pictures show.
        latent_shape = tuple(subject.data.latents.shape[1:])
        sampler = PreviewSampler(session.model, self._clip, self._vae, latent_shape, config.seed)
        encoder = TemplateEncoder(clip, [config.preview_prompt], concept.num_vectors, concept.superclass)

        def preview() -> Image.Image | None:
            with torch.no_grad():
                # Those of the last step are from before its update.
                session.weights.place_casts()
                context = encoder(0, subject.token.vectors)
            return sampler.render(context)

        return TrainingProgress(config.steps, config.preview_every, preview)

    def _class_pixels(self) -> list[torch.Tensor]:
        folder = None if self._run_dir is None else self._run_dir / _CLASS_FOLDER
        return [
            make_class_pictures(source, self._model, self._clip, self._vae, folder, self._models)
            if isinstance(source, ClassPictures)
            else source
            for source in self._class_sources
        ]

    def _checkpointing(self) -> bool:
        return self._tuning is not None and self._tuning.gradient_checkpointing

    def _batch_shape(self) -> tuple[int, ...]:
        """Return (batch, C, h, w) of one forward pass."""
        height, width = (side // _PIXELS_PER_CELL for side in self._concepts[0].photos.shape[1:3])
        batch = self._config.batch_size * (2 if self._class_sources else 1)
        return (batch, self._model.model.latent_format.latent_channels, height, width)

    def _fingerprint(self) -> dict[str, str]:
        """Return everything that the bits of the result depend on."""
        fingerprint = {**self._config.fingerprint(), **self._models}
        for index, concept in enumerate(self._concepts):
            which = f" {index + 1}" if index else ""
            if index:
                fingerprint[f"words{which}"] = repr((concept.superclass, concept.init_word, concept.num_vectors))
            fingerprint[f"images{which}"] = digest(concept.photos)
            fingerprint[f"mask{which}"] = "none" if concept.masks is None else digest(concept.masks)
            fingerprint[f"anchors{which}"] = (
                "none" if concept.dictionary is None else digest(concept.dictionary.vectors)
            )
            if self._class_sources:
                source = self._class_sources[index]
                fingerprint[f"class images{which}"] = (
                    source.description() if isinstance(source, ClassPictures) else digest(source)
                )
        return fingerprint

    def _summary(self) -> dict[str, object]:
        return {**asdict(self._config), "method": self._config.method, "concepts": [c.name for c in self._concepts]}


def _to_device(encoder: TemplateEncoder, device: torch.device) -> Callable[[int, torch.Tensor], torch.Tensor]:
    return lambda index, vectors: encoder(index, vectors).to(device)
