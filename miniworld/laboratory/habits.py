"""How a model on the host is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Habits:
    """How a model is used.

    Attributes
    ----------
    side
        Of pictures in pixels.
    templates, templates_with_class
        Sentences to learn from; in the latter the word stands before its class noun.
    anchor_words
        Nouns to stay close to.
    painting
        ``steps``, ``cfg``, ``sampler_name``, ``scheduler``.
    class_pictures
        How many pictures of a class the prior loss has.
    """

    side: int
    templates: tuple[str, ...]
    templates_with_class: tuple[str, ...]
    anchor_words: tuple[str, ...]
    painting: dict[str, Any]
    class_pictures: int = 100
