"""Learning concepts by any of the methods on the host's MODEL, CLIP and VAE, and keeping what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ... import logger
from ...basics.atomic_file import check_writable, remove_leftovers
from ...learning.concept import Concept, check_distinct_names
from ...learning.embedding_file import check_replaceable, write_concept
from ...learning.lora_file import check_lora_replaceable, write_lora
from ...learning.settings import InversionConfig
from ...learning.together import Together
from ...semantic.anchors import Anchors
from ...training.events import Sink, everybody
from ...training.run_folder.one_at_a_time import alone_in
from ...training.together import train_together
from ..progress import host_listener, stop_if_asked
from ..text.encoder import text_encoder_gradients
from .memory import pictures_at_once
from .run import InversionRun
from .session import training_session
from .trained_weights import outcome_of

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Places:
    """Where a training keeps what it makes; what is None is not kept.

    Attributes
    ----------
    run : Path
        Folder of the training state and class pictures.
    embeddings : Path
        Folder of an embedding file ``NAME.safetensors`` for each concept, written in the end.
    lora : Path
        File of what was changed in the model, in full or as the factors that were trained, for the methods with one.
    """

    run: Path | None = None
    embeddings: Path | None = None
    lora: Path | None = None

    def check(self, config: InversionConfig, concepts: Sequence[Concept]) -> None:
        """Refuse places that could not be written to in the end, before the training.

        Raises
        ------
        UserError
        """
        if self.run is not None:
            check_writable(self.run)
        if self.embeddings is not None:
            check_writable(self.embeddings)
            for concept in concepts:
                check_replaceable(self.embedding(concept), config.method.name)
        if self.lora is not None:
            check_writable(self.lora.parent)
            check_lora_replaceable(self.lora)

    def clear(self) -> None:
        """Clear away what killed processes left, now that everything is written."""
        for folder in (self.embeddings, self.lora.parent if self.lora else None):
            if folder is not None:
                remove_leftovers(folder, young=True)

    def description(self, concepts: Sequence[Concept]) -> str:
        """Return a sentence on what will be written where; empty where nothing is."""
        written = [f"the training state in {self.run}"] if self.run else []
        written += [str(self.embedding(concept)) for concept in concepts] if self.embeddings else []
        written += [str(self.lora)] if self.lora else []
        return f"Written will be: {', '.join(written)}." if written else ""

    def embedding(self, concept: Concept) -> Path:
        """Return the file of a concept's embedding."""
        assert self.embeddings is not None
        return self.embeddings / f"{concept.name}.safetensors"


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What `train_concepts` returns.

    Attributes
    ----------
    model : ModelPatcher
        A clone of the model passed in, with what was trained; the model itself where only words are.
    concepts : tuple of Concept
        In the order of training.
    history : dict of str to list of float
        ``loss``, ``reconstruction``, ``prior``, ``anchor``, ``composition`` and ``steady loss`` (of fixed noise), per
        step, resumed ones included, where they exist.
    lora : dict of str to Tensor
        For the host's LORA_MODEL: the full difference, its approximation, or the factors that were trained; empty where
        only words are.
    told : str
        What the person should know of the training, such as that it diverged; mostly empty.
    """

    model: ModelPatcher
    concepts: tuple[Concept, ...]
    history: dict[str, list[float]]
    lora: Tensors = field(default_factory=dict)
    told: str = ""

    @property
    def losses(self) -> list[float]:
        """Total loss of every step."""
        return self.history["loss"]

    @property
    def loss_map(self) -> dict[str, list[float]]:
        """For the host's LOSS_MAP: the total loss of every step, and how well the word combined by then."""
        return {name: self.history[name] for name in ("loss", "composition") if name in self.history}

    @property
    def prompt_words(self) -> str:
        """The concepts as they stand best in a prompt: ``embedding:NAME superclass``, joined by ``and``."""
        return " and ".join(concept.phrase for concept in self.concepts)


def train_concepts(
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    config: InversionConfig,
    concepts: Sequence[Concept],
    anchors: Anchors | None = None,
    places: Places | None = None,
    on_event: Sink | None = None,
) -> TrainingResult:
    """Learn concepts, with semantic inversion where anchors are given.

    The model and text encoder passed in are not changed. Without a `config.prior_weight` no class pictures are used.

    Parameters
    ----------
    model, clip, vae
        Of one family. A model patched by a LoRA is trained as it is patched.
    config : InversionConfig
        Of the method.
    concepts : sequence of Concept
        With photos of one size, cropped at the centre to whole latent cells.
    anchors : Anchors, optional
        Loaded with the same `clip`. None is the plain method.
    on_event : Sink, optional
        Hears of the work beside the host's progress bar; may raise to stop.

    Raises
    ------
    UserError
        One sentence on the input that is wrong, before the training starts; also when it does not fit into memory.
    """
    places = places or Places()
    places.check(config, concepts)
    with alone_in(places.run) if places.run is not None else nullcontext():
        run = InversionRun(model, clip, vae, config, concepts, anchors, places.run)
        writes = places.description(concepts)
        learned = run.learn(lambda weights: outcome_of(weights, config, model), on_event, writes)
    patches, lora = learned.outcome
    # The large file first: where there is no room for it, the earlier pair of files stays whole.
    if places.lora is not None:
        write_lora(lora, places.lora, learned.concepts[0].metadata)
    if places.embeddings is not None:
        for concept in learned.concepts:
            write_concept(concept, places.embedding(concept))
    places.clear()
    if patches:
        model = model.clone()
        model.add_patches(patches)
    return TrainingResult(model, learned.concepts, learned.history, lora, learned.told)


@dataclass(frozen=True, eq=False)
class Wish:
    """A word to be learned beside others; `anchors` as for `train_concepts`."""

    config: InversionConfig
    concept: Concept
    anchors: Anchors | None = None


@dataclass(frozen=True, eq=False)
class LearnedWord:
    """What became of a `Wish`.

    Attributes
    ----------
    concept : Concept, or None
        None where the training came apart before there was anything to keep.
    history : dict of str to list of float
        As in `TrainingResult`.
    told : str
        As in `TrainingResult`.
    """

    concept: Concept | None
    history: dict[str, list[float]]
    told: str = ""


def learn_together(
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    wishes: Sequence[Wish],
    embeddings: Path | None = None,
    most_pictures: int | None = None,
    on_event: Sink | None = None,
) -> list[LearnedWord]:
    """Learn many words by textual inversion, whose batches go through the diffusion model side by side.

    Each is the word that `train_concepts` gives, to rounding, and one that comes apart does not end the others. Nothing
    is saved on the way: what was stopped begins anew. There are no previews; how a word combines is measured by itself.

    Parameters
    ----------
    model, clip, vae
        As for `train_concepts`.
    wishes : sequence of Wish
        Of textual inversion, with names of their own and photos of one size.
    embeddings : Path, optional
        Folder of an embedding file ``NAME.safetensors`` for each word, all written in the end.
    most_pictures : int, optional
        Most pictures of one evaluation of the model; None takes as many as fit into half of the memory.

    Returns
    -------
    list of LearnedWord
        One for each wish.

    Raises
    ------
    UserError
        As `train_concepts`.
    """
    if any(wish.config.method.trains_model for wish in wishes):
        raise ValueError("Only words can be learned side by side, not the model.")
    check_distinct_names([wish.concept for wish in wishes])
    places = Places(embeddings=embeddings)
    for wish in wishes:
        places.check(wish.config, [wish.concept])
    runs = [InversionRun(model, clip, vae, wish.config, [wish.concept], wish.anchors) for wish in wishes]
    sink = everybody(*([on_event] if on_event else []), host_listener())
    encoded = [run.encoded(sink) for run in runs]
    batch, *picture = runs[0].batch_shape()
    most = most_pictures or pictures_at_once(model, clip, tuple(picture))
    largest = min(most, sum(run.batch_shape()[0] for run in runs))
    opened = training_session(model, clip, (max(batch, largest), *picture))
    with opened as (session, open_clip), text_encoder_gradients(open_clip):
        tasks = [run.task(session, open_clip, each) for run, each in zip(runs, encoded, strict=True)]
        settings = [wish.config.loop_settings(session.computes_in_float16) for wish in wishes]
        watches = [run.watch(session, open_clip, task) for run, task in zip(runs, tasks, strict=True)]
        losses = Together(tasks, session.denoise, most).losses
        courses = train_together(tasks, settings, losses, sink, stop_if_asked, watches)
        learned = [
            LearnedWord(None if course.failed else run.learned(task, watch)[0], course.history, course.told)
            for run, task, watch, course in zip(runs, tasks, watches, courses, strict=True)
        ]
    for wish, word in zip(wishes, learned, strict=True):
        if word.told:
            logger.warning("%s: %s", wish.concept.name, word.told)
        if embeddings is not None and word.concept is not None:
            write_concept(word.concept, places.embedding(word.concept))
    places.clear()
    return learned
