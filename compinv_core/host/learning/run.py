"""One training from the host's objects to what was learned, the same for all methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import torch

from ...basics.errors import remark
from ...learning.concept import Concept
from ...learning.condition import Condition
from ...learning.inversion import Inversion, Subject
from ...learning.pictures.encoded import ClassData, Encoded, InversionData
from ...learning.pictures.of_sizes import PhotosOfSizes
from ...learning.pictures.sizes import Frame
from ...learning.settings import InversionConfig
from ...semantic.anchors import Anchors
from ...semantic.context import Surroundings
from ...training.events import Event, Sink, everybody
from ...training.loop import take_saved, train
from ...training.optimizers import check_optimizer
from ...training.run_folder.state import RunStore
from ...training.watch import BEST, Watch
from ..family import Family
from ..fingerprints import earlier_fingerprint, model_fingerprint
from ..painting import Painter
from ..progress import host_listener, stop_if_asked, with_previews
from ..text.encoder import text_encoder_gradients
from ..text.sentences import TemplateEncoder, read_sentence, read_surroundings
from ..text.vocabulary import check_known_word
from .class_pictures import ClassPictures, class_prompts, class_sources, kept_folder, make_class_pictures
from .composing import composition_watch
from .concepts import (
    check_concepts,
    context_nouns,
    dictionary,
    learned_concept,
    learned_token,
    log_equivalent_weights,
)
from .fingerprint import run_fingerprint
from .memory import check_memory
from .photos import check_autoencoder, encoded_pictures, remark_on_photos, samples_posterior
from .preview import PREVIEW, preview_of
from .session import DiffusionSession, check_trainable, training_session
from .trained_weights import Weights

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

Outcome = TypeVar("Outcome")
EncodedPhotos = list[tuple[Encoded, torch.Tensor | None]]
"""Of a concept, for each size, with masks at latent resolution."""

EncodedPictures = tuple[list[EncodedPhotos], list[Encoded]]


@dataclass(frozen=True, eq=False)
class Learned(Generic[Outcome]):
    """What a training gives.

    Attributes
    ----------
    history : dict of str to list of float
        ``loss``, its parts and ``composition``, per step.
    outcome
        What was made of the trained weights.
    told : str
        What the person should know of the training; mostly empty.
    """

    concepts: tuple[Concept, ...]
    history: dict[str, list[float]]
    outcome: Outcome
    told: str = ""


class InversionRun:
    """A training that is checked when made, and started by `learn`.

    Parameters
    ----------
    model, clip, vae
        Of one family; not changed.
    config : InversionConfig
        Of the method.
    concepts : sequence of Concept
        To be learned together.
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
        concepts: Sequence[Concept],
        anchors: Anchors | None = None,
        run_dir: Path | None = None,
    ) -> None:
        self._family = Family.of(config.method.node_name, model, clip)
        check_trainable(model)
        check_autoencoder(self._family, vae)
        self._model, self._clip, self._vae, self._config = model, clip, vae, config
        self._samples_posterior = samples_posterior(config, vae)
        self._concepts = check_concepts(clip, config, concepts)
        remark_on_photos(self._family, model, self._concepts)
        self._dictionaries = [dictionary(clip, config, concept.superclass, anchors) for concept in self._concepts]
        self._nouns = [context_nouns(config, concept.superclass, anchors) for concept in self._concepts]
        for index in range(len(self._concepts)):
            self._surroundings(clip, index)
        self._run_dir = run_dir
        self._class_sources = class_sources(self._family, config, self._concepts)
        prompts = class_prompts(config, self._concepts)
        self._class_sentences = [read_sentence(clip, prompt, "class_prompt") for prompt in prompts]
        self._store, done = None, None
        if run_dir is not None:
            self._models, self._earlier = model_fingerprint(model, clip, vae), earlier_fingerprint(model, clip, vae)
            prints = run_fingerprint(
                config, self._concepts, self._dictionaries, self._nouns, self._class_sources, self._models
            )
            self._store = RunStore(run_dir, prints, self._summary(), self._earlier)
            if config.saved_step:
                self._store.check_saved(config.saved_step)
            else:
                done = self._store.check(config.steps, config.resume)
        # A finished run is only read back.
        self._done, self._preflight = done or 0, ""
        if done != config.steps and not config.saved_step:
            check_optimizer(config.optimizer, model.load_device)
            memory, self._preflight = check_memory(model, clip, config, self._trains(), self.batch_shape())
            if self._store is not None:
                best = memory.gradients if config.keep == BEST else 0
                self._store.check_room(memory.state_file, done is not None, best)
        for noun in config.composition_nouns:
            check_known_word(clip, noun, "composition_nouns")
        self._patched = bool(model.patches or model.injections)
        if self._patched:
            what = "the word is learned for the patched model, which is not changed"
            if config.method.trains_model:
                what = "the patched model is trained, and the result belongs on top of the same patches"
            remark(f"{config.method.node_name}: the model is patched, by a LoRA for example; {what}.", "note")

    def learn(
        self, finish: Callable[[Weights], Outcome], on_event: Sink | None = None, writes: str = ""
    ) -> Learned[Outcome]:
        """Train to the last step, continuing a saved run where there is one.

        Photos are encoded once, to the mean of the autoencoder's posterior; where it is sampled, with its spread.

        Parameters
        ----------
        finish : callable
            Makes the outcome of the trained weights, while the model is still open.
        on_event : Sink, optional
            Hears of everything beside the host's progress bar.
        writes : str
            A sentence on what will be written, told before the first step.
        """
        told: list[str] = []
        sink = everybody(*([on_event] if on_event else []), host_listener(), lambda event: told.append(event.sentence))
        chosen = self._config.saved_step
        if self._preflight:
            sink(Event("training", self._done, self._config.steps, sentence=f"{self._preflight} {writes}".rstrip()))
        encoded = self.encoded(sink)
        log_equivalent_weights(self._config, self._dictionaries[0])
        trained = (self._trains(), self._config.gradient_checkpointing, self._config.low_rank)
        opened = training_session(self._model, self._clip, self.batch_shape(), *trained)
        with opened as (session, clip), text_encoder_gradients(clip):
            task = self.task(session, clip, encoded)
            if self._config.preview_every:
                height, width = self._family.whole_cells(*self._concepts[0].picture_size)
                painter = Painter(session.model, self._clip, self._vae, PREVIEW, height, width)
                paint = preview_of(painter, session, clip, self._config, self._concepts[0], task.subjects[0])
                sink = with_previews(self._config.preview_every, paint, sink)
            settings = self._config.loop_settings(session.computes_in_float16)
            watch = self.watch(session, clip, task)
            if chosen:
                assert self._store is not None
                history = take_saved(task, self._store, chosen, watch)
                told.append(f"Step {chosen} of the saved training is the result, as saved_step says.")
            else:
                history = train(task, settings, self._store, sink, stop_if_asked, watch)
            return Learned(self.learned(task, watch), history, finish(session.weights), " ".join(filter(None, told)))

    def encoded(self, sink: Sink) -> EncodedPictures:
        """Encode the photos of each concept with their masks, and its class pictures, which are painted if need be."""
        photos = [
            [
                self._encoded(batch, masks, sink, frame)
                for batch, masks, frame in zip(
                    concept.photos,
                    concept.masks or repeat(None, len(concept.photos)),
                    concept.frames or repeat(None, len(concept.photos)),
                    strict=True,
                )
            ]
            for concept in self._concepts
        ]
        return photos, [self._encoded(pixels, None, sink)[0] for pixels in self._class_pixels(sink)]

    def task(self, session: DiffusionSession, clip: CLIP, encoded: EncodedPictures) -> Inversion:
        """Return the task at its start, on the session's device."""
        subjects = self._subjects(session, clip, *encoded)
        return Inversion(self._config, subjects, session.num_timesteps, session.denoise, session.weights.parameters)

    def watch(self, session: DiffusionSession, clip: CLIP, task: Inversion) -> Watch | None:
        """Return what measures a task on its way; see `composing.composition_watch`."""
        return composition_watch(session, clip, self._family, self._config, self._concepts, self._dictionaries, task)

    def learned(self, task: Inversion, watch: Watch | None) -> tuple[Concept, ...]:
        """Return the concepts with the words that a task has learned."""
        return tuple(
            learned_concept(self._config, concept, subject.token, self._family.widths, self._patched, watch)
            for concept, subject in zip(self._concepts, task.subjects, strict=True)
        )

    def batch_shape(self) -> tuple[int, ...]:
        """Return (batch, C, h, w) of one forward pass of this training."""
        batch = self._config.batch_size * (2 if self._class_sources else 1)
        sizes = [self._family.latent_size(*concept.picture_size) for concept in self._concepts]
        return (batch, self._family.latent_channels, *max(sizes, key=lambda size: size[0] * size[1]))

    def _encoded(
        self, photos: torch.Tensor, masks: torch.Tensor | None, sink: Sink, frame: Frame | None = None
    ) -> tuple[Encoded, torch.Tensor | None]:
        how = (self._config.mirrors, self._samples_posterior)
        return encoded_pictures(self._family, self._model, self._vae, photos, masks, sink, frame, *how)

    def _subjects(
        self,
        session: DiffusionSession,
        clip: CLIP,
        photos: Sequence[EncodedPhotos],
        classes: Sequence[Encoded],
    ) -> list[Subject]:
        subjects = []
        for index, (concept, of_sizes) in enumerate(zip(self._concepts, photos, strict=True)):
            encoder = TemplateEncoder(clip, self._config.sentences, concept.num_vectors, concept.superclass)
            pictures = None
            if classes:
                with torch.no_grad():
                    condition = self._class_sentences[index].encode(clip).to(session.device)
                pictures = ClassData(condition=condition, **classes[index].placed(session.device))
            token = learned_token(self._clip, self._config, concept, self._dictionaries[index], session.device)
            data = [
                InversionData(
                    weights=None if masks is None else masks.to(session.device), **encoded.placed(session.device)
                )
                for encoded, masks in of_sizes
            ]
            drawn = data[0] if len(data) == 1 else PhotosOfSizes(data)
            encode = _to_device(encoder, session.device)
            subjects.append(Subject(token, drawn, encode, pictures, self._surroundings(clip, index)))
        return subjects

    def _surroundings(self, clip: CLIP, index: int) -> Surroundings | None:
        concept, nouns = self._concepts[index], self._nouns[index]
        if not nouns:
            return None
        return read_surroundings(clip, self._config.sentences, nouns, concept.num_vectors, concept.superclass)

    def _class_pixels(self, sink: Sink) -> list[torch.Tensor]:
        return [
            make_class_pictures(source, self._model, self._clip, self._vae, self._kept(source), sink)
            if isinstance(source, ClassPictures)
            else source
            for source in self._class_sources
        ]

    def _kept(self, wanted: ClassPictures) -> Path | None:
        if self._run_dir is None:
            return None
        return kept_folder(self._run_dir / "class_images", wanted, self._models, self._earlier)

    def _trains(self) -> Callable[[str], bool]:
        return self._family.trained_weights[self._config.method.trains]

    def _summary(self) -> dict[str, object]:
        names = [concept.name for concept in self._concepts]
        return {**asdict(self._config), "method": self._config.method.name, "concepts": names}


def _to_device(encoder: TemplateEncoder, device: torch.device) -> Callable[[int, torch.Tensor], Condition]:
    return lambda index, vectors: encoder(index, vectors).to(device)
