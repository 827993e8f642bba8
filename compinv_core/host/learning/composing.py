"""How a word in training shares the model's attention with other nouns; see `semantic.composition`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ...basics.errors import UserError, remark
from ...learning.concept import Concept
from ...learning.condition import Condition, joined_conditions
from ...learning.inversion import Inversion
from ...learning.settings import InversionConfig
from ...semantic.anchors import Anchors
from ...semantic.composition import Composition
from ...spatial.attention import BlockAttention
from ...spatial.settings import BLOCK_CHOICES
from ...training.watch import ALL_STEPS, LAST, Watch
from ...words.nouns import coco80, same_noun
from ..family import Family
from ..text.encoder import word_token_ids
from ..text.sentences import TemplateEncoder, read_sentence
from .session import DiffusionSession, training_session

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP

_NEIGHBOURS = 4
# Of the noise schedule; what goes where is settled early in sampling.
_TIMES = (0.95, 0.75)
_SEED = 0
# Of a word that is not in training: a picture of 512 pixels, or what a smaller model makes of as many cells.
_CELLS, _BATCH = (64, 64), 4


def neighbours(superclass: str, anchors: Anchors | None, wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the nouns to stand beside a word: those wanted, or four of the anchors or of COCO's nouns."""
    if wanted:
        return tuple(wanted)
    nouns = [noun for noun in (anchors.words if anchors else coco80()) if not same_noun(noun, superclass)]
    nouns = nouns or list(coco80())
    count = min(_NEIGHBOURS, len(nouns))
    return tuple(nouns[(2 * i + 1) * len(nouns) // (2 * count)] for i in range(count))


class CompositionGauge:
    """Measures words of one concept in "word class and a noun" against "class and a noun", on fixed noise.

    Parameters
    ----------
    session : DiffusionSession
        With the model as it is before the training, which the class noun is measured with at once.
    with_class : bool
        Whether the class noun stands behind the word.
    nouns : sequence of str
        To stand beside it; see `neighbours`.
    latent_size : tuple of int
        Height and width of a latent.
    batch : int
        Pictures per evaluation at most.
    input_name : str
        To be named when a sentence is too long for the text encoder.
    """

    def __init__(
        self,
        session: DiffusionSession,
        clip: CLIP,
        family: Family,
        superclass: str,
        num_vectors: int,
        with_class: bool,
        nouns: Sequence[str],
        latent_size: tuple[int, int],
        batch: int,
        input_name: str = "composition_nouns",
    ) -> None:
        self._session, self._batch = session, batch
        self._blocks = session.blocks(family, BLOCK_CHOICES[0])
        word = "{} {class}" if with_class else "{}"
        templates = [f"{word} and a {noun}" for noun in nouns]
        self._encoder = TemplateEncoder(clip, templates, num_vectors, superclass, input_name)
        generator = torch.Generator().manual_seed(_SEED)
        self._noise = torch.randn(len(_TIMES), family.latent_channels, *latent_size, generator=generator)
        own = len(word_token_ids(clip, superclass))
        tokens = [len(word_token_ids(clip, noun)) for noun in nouns]
        self._spans = _spans(self._encoder.lengths, num_vectors + (own if with_class else 0), tokens)
        sentences = [read_sentence(clip, f"{superclass} and a {noun}", "composition_nouns") for noun in nouns]
        with torch.no_grad():
            conditions = [sentence.encode(clip) for sentence in sentences]
            self._class_noun = self._shares(conditions, _spans([s.end - 1 for s in sentences], own, tokens))

    def __call__(self, vectors: torch.Tensor) -> Composition:
        """Measure a word of vectors (k, D), float32."""
        with torch.no_grad():
            conditions = [self._encoder(index, vectors) for index in range(len(self._spans))]
            return Composition.of(self._shares(conditions, self._spans), self._class_noun)

    def _shares(self, conditions: Sequence[Condition], spans: Sequence[tuple[range, range]]) -> torch.Tensor:
        """Attention of word and neighbour in each sentence, (N, 2)."""
        rows, count = len(conditions) * len(_TIMES), self._session.num_timesteps
        condition = joined_conditions(list(conditions) * len(_TIMES)).to(self._session.device)
        noise = self._noise.repeat_interleave(len(conditions), 0).to(self._session.device)
        times = torch.tensor([int(time * count) for time in _TIMES]).repeat_interleave(len(conditions))
        looks = torch.cat(
            [
                _by_token(
                    self._session.attention(
                        noise[part], times[part].to(noise.device), condition.rows(part), self._blocks
                    )
                )
                for part in torch.arange(rows).split(self._batch)
            ]
        )
        by_sentence = looks.unflatten(0, (len(_TIMES), -1)).mean(0).cpu()
        return torch.stack(
            [
                torch.stack([row[list(span)].mean() for span in pair])
                for row, pair in zip(by_sentence, spans, strict=True)
            ]
        )


def word_composition(
    model: ModelPatcher, clip: CLIP, vectors: torch.Tensor, superclass: str, anchors: Anchors | None, node: str
) -> Composition:
    """Measure a word that is not in training, behind its class noun.

    Parameters
    ----------
    vectors : Tensor (k, D), float32
    anchors : Anchors, optional
        Where its neighbours come from; see `neighbours`.
    node : str
        Opens the sentence when model and text encoder are not of one family.

    Raises
    ------
    UserError
        Also when the word is too long for a neighbour to fit beside it.
    """
    family = Family.of(node, model, clip)
    nouns = neighbours(superclass, anchors)
    with (
        torch.no_grad(),
        training_session(model, clip, (_BATCH, family.latent_channels, *_CELLS)) as (session, open_clip),
    ):
        gauge = CompositionGauge(
            session, open_clip, family, superclass, len(vectors), True, nouns, _CELLS, _BATCH, f"{node}: embedding"
        )
        return gauge(vectors.to(session.device))


def composition_watch(
    session: DiffusionSession,
    clip: CLIP,
    family: Family,
    config: InversionConfig,
    concepts: Sequence[Concept],
    dictionaries: Sequence[Anchors | None],
    task: Inversion,
) -> Watch | None:
    """Return what measures how the words of a training combine, as a mean over them.

    The class nouns are measured at once. None where a word is so long that nothing fits beside it, and nothing hangs on
    the measurement.

    Raises
    ------
    UserError
        When something does, or a noun of the settings has no place in a sentence.
    """
    try:
        gauges = [
            CompositionGauge(
                session, clip, family, concept.superclass, concept.num_vectors, config.with_class,
                neighbours(concept.superclass, anchors, config.composition_nouns),
                family.latent_size(*concept.picture_size), config.batch_size,
            )
            for concept, anchors in zip(concepts, dictionaries, strict=True)
        ]  # fmt: skip
    except UserError as error:
        if (config.keep, config.stop) != (LAST, ALL_STEPS):
            raise
        remark(f"How the word combines is not measured: {error}")
        return None

    def measure() -> tuple[float, float]:
        scores = [gauge(subject.token.vectors).score for gauge, subject in zip(gauges, task.subjects, strict=True)]
        return sum(scores) / len(scores), task.steady_loss()

    return Watch(measure, config.measured_every, config.keep, config.stop)


def _spans(lengths: Sequence[int], first: int, last: Sequence[int]) -> list[tuple[range, range]]:
    """Positions of a sentence's first phrase and of its last one, for each sentence."""
    return [
        (range(1, 1 + first), range(1 + length - tokens, 1 + length))
        for length, tokens in zip(lengths, last, strict=True)
    ]


def _by_token(blocks: Sequence[BlockAttention]) -> torch.Tensor:
    """Mean attention to each token over blocks, heads and cells, (B, T)."""
    return torch.stack([block.weights.mean((1, 2)) for block in blocks]).mean(0)
