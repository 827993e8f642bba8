"""The photos of one concept with its words, and chains of them for learning several concepts together."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .checks import check_range
from .concept import check_name
from .errors import UserError

MOST_VECTORS = 75


@dataclass(frozen=True, eq=False)
class ConceptImages:
    """What a concept is learned from, as it flows between nodes; checked when made.

    Attributes
    ----------
    images : tuple of Tensor (b, H, W, C), 0 to 1
        Batches as they come from the graph.
    name : str
        Name of the concept: letters, digits, ``-``, ``_``.
    superclass : str
        Ordinary noun for the concept, such as ``cat``.
    init_word : str
        Word whose embedding is the start; empty for the superclass.
    num_vectors : int
        Token vectors to learn, 1 to 75.
    masks : tuple of Tensor (b, H, W), or None
        1 where the concept is.
    previous : ConceptImages, optional
        Another concept to be learned together with this one.
    class_images : tuple of Tensor (b, H, W, C), 0 to 1, or None
        Pictures of the concept's class for the prior loss; None has them made where there is such a loss.
    """

    images: tuple[torch.Tensor, ...]
    name: str
    superclass: str
    init_word: str = ""
    num_vectors: int = 1
    masks: tuple[torch.Tensor, ...] | None = None
    previous: ConceptImages | None = None
    class_images: tuple[torch.Tensor, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", check_name(self.name))
        object.__setattr__(self, "superclass", check_superclass(self.superclass))
        object.__setattr__(self, "init_word", " ".join(self.init_word.split()) or self.superclass)
        check_range("num_vectors", self.num_vectors, 1, MOST_VECTORS)
        check_distinct_names(self.chain())

    def chain(self) -> tuple[ConceptImages, ...]:
        """Return this concept and those before it, the first one first.

        Returns
        -------
        tuple of ConceptImages
        """
        return (*(self.previous.chain() if self.previous is not None else ()), self)


def check_superclass(superclass: str) -> str:
    """Return the class noun without surplus white space; refuse an empty one.

    Parameters
    ----------
    superclass : str

    Returns
    -------
    str

    Raises
    ------
    UserError
    """
    tidy = " ".join(superclass.split())
    if not tidy:
        raise UserError("superclass is empty; type the ordinary noun for the concept, such as cat.")
    return tidy


def check_distinct_names(concepts: tuple[ConceptImages, ...]) -> None:
    """Refuse two concepts of one name, whose files would overwrite each other.

    Case does not tell names apart, since some disks do not either.

    Parameters
    ----------
    concepts : tuple of ConceptImages

    Raises
    ------
    UserError
    """
    seen: set[str] = set()
    for concept in concepts:
        folded = concept.name.casefold()
        if folded in seen:
            raise UserError(f"Two concepts have the name {concept.name!r}; give each its own in Concept Images.")
        seen.add(folded)
