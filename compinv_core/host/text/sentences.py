"""Sentences of a training as the host would read them in a prompt, with learned vectors in the place of ``{}``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch

from ...basics.errors import UserError, quoted
from ...learning.condition import Condition
from ...semantic.context import Surroundings
from ...semantic.widths import parts_of
from ...words.sentences import beside_nouns, split_template, with_class
from ..family import Family
from .encoder import encode_chunk, word_token_ids
from .listening import Token
from .reading import read_prompt

if TYPE_CHECKING:
    from comfy.sd import CLIP

_PLACE = "{}"


@dataclass(frozen=True, eq=False)
class Sentence:
    """A sentence that fits into one chunk of the text encoders.

    Parameters
    ----------
    lines : tuple of (tuple of Token, tuple of float), both of length 77
        For each text encoder its tokens and their weights.
    place : tuple of int
        Positions of the learned vectors.
    end : int
        Position behind the last of its own tokens.
    """

    lines: tuple[tuple[tuple[Token, ...], tuple[float, ...]], ...]
    place: tuple[int, ...] = ()
    end: int = 0

    def encode(self, clip: CLIP, vectors: torch.Tensor | None = None) -> Condition:
        """Return the condition of one picture by the sentence with vectors (k, D) in their place."""
        parts = (
            [()] * len(self.lines)
            if vectors is None
            else parts_of(vectors, Family.of("The text encoder", clip=clip).widths)
        )
        lines = []
        for (tokens, weights), part in zip(self.lines, parts, strict=True):
            filled = list(tokens)
            for position, vector in zip(self.place, part, strict=True):
                filled[position] = vector
            lines.append((filled, weights))
        return encode_chunk(clip, lines)


class TemplateEncoder:
    """Encodes template sentences with vectors in the place of ``{}``, through the host's own text model.

    The vectors stand in the token list as `embedding:` vectors do, so clip skip, LoRA on the text encoder and emphasis
    act as in a prompt. To be used inside `encoder.text_encoder_gradients` when a gradient is wanted.

    Parameters
    ----------
    superclass : str
        What stands for ``{class}`` in the templates.
    input_name : str
        The input to be named when a template is wrong.

    Raises
    ------
    UserError
        When a template does not fit into the 77 positions, or an embedding in it takes no effect.
    """

    def __init__(
        self,
        clip: CLIP,
        templates: Sequence[str],
        num_vectors: int,
        superclass: str,
        input_name: str = "custom_templates",
    ) -> None:
        self._clip = clip
        place = {_PLACE: torch.zeros(num_vectors, Family.of(input_name, clip=clip).width)}
        self.sentences: list[Sentence] = []
        for template in templates:
            before, after = split_template(with_class(template, superclass), input_name)
            sentence, surplus = _read(clip, f"{before} embedding:{_PLACE} {after}", input_name, template, place)
            if surplus > 0:
                raise UserError(
                    f"{input_name}: {quoted(template)} with {num_vectors} vectors is {surplus} tokens too long for the "
                    "text encoder; take a shorter sentence or lower num_vectors."
                )
            self.sentences.append(sentence)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sentence between start and end, the learned vectors among them."""
        return [sentence.end - 1 for sentence in self.sentences]

    def __call__(self, index: int, vectors: torch.Tensor) -> Condition:
        """Return the condition of one picture by a sentence.

        Parameters
        ----------
        index : int
            Of the template.
        vectors : Tensor (k, D), float32
        """
        return self.sentences[index].encode(self._clip, vectors)


def read_surroundings(
    clip: CLIP, templates: Sequence[str], nouns: Sequence[str], num_vectors: int, superclass: str
) -> Surroundings:
    """Read sentences of a learned word beside nouns, in training sentences' manner, and beside its superclass.

    Raises
    ------
    UserError
        Naming `context_weight`, when a sentence does not fit into the 77 positions.
    """
    pairs = beside_nouns(templates, nouns)
    encoder = TemplateEncoder(clip, [here for here, _ in pairs], num_vectors, superclass, "context_weight")
    references = [read_sentence(clip, with_class(there, superclass), "context_weight") for _, there in pairs]
    noun, places = len(word_token_ids(clip, superclass)), []
    for (template, _), sentence, reference in zip(pairs, encoder.sentences, references, strict=True):
        first = sentence.place[0]
        behind = first + num_vectors + (noun if "{class}" in template else 0)
        before = range(1, first)
        places.append(([*before, *range(behind, sentence.end)], [*before, *range(first + noun, reference.end)]))
    return Surroundings(
        lambda index, vectors: encoder(index, vectors).tokens,
        cache(lambda index: references[index].encode(clip).tokens),
        places,
    )


def read_sentence(clip: CLIP, text: str, input_name: str) -> Sentence:
    """Read a sentence without a learned word.

    Raises
    ------
    UserError
        Naming the input, when the sentence does not fit into the 77 positions or an embedding in it takes no effect.
    """
    sentence, surplus = _read(clip, text, input_name, text, {})
    if surplus > 0:
        raise UserError(f"{input_name} is {surplus} tokens too long for the text encoder; shorten it.")
    return sentence


def _read(
    clip: CLIP, text: str, input_name: str, shown: str, place: Mapping[str, torch.Tensor]
) -> tuple[Sentence, int]:
    """Return the first chunk of a text, and how many tokens are beyond it."""
    reading = read_prompt(clip, text, input_name, place)
    reading.require_all(input_name, f"the sentence {quoted(shown)}", "the sentence")
    first, *others = reading.encoders
    if any(
        [position for position, _ in each.content] != [position for position, _ in first.content] for each in others
    ):
        raise UserError(
            f"{input_name}: {quoted(shown)} has an embedding with more vectors in one text encoder than in "
            "another; leave it out."
        )
    # Vectors of files were read in the host's inference mode, which a gradient does not pass.
    with torch.inference_mode(False):
        lines = tuple(
            (tuple(t.clone() if isinstance(t, torch.Tensor) else t for t in each.chunks[0]), each.weights[0])
            for each in reading.encoders
        )
    positions = [position for e in first.embeddings if e.name in place for position in e.positions]
    sentence = Sentence(lines, tuple(positions), len(first.content) + 1)
    return sentence, len(first.content) + 2 - len(first.chunks[0])
