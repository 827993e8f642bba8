"""An own thing, from its photos to its word: one type from the first check to the saved file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ..basics.content import ByContent
from ..basics.errors import UserError, quoted
from ..basics.names import check_name
from ..basics.settings import check_settings, setting
from ..semantic.widths import Widths
from .pictures.sizes import Frame

Images = torch.Tensor | Sequence[torch.Tensor]
"""A batch (n, H, W, ...) or several, as they come from the graph."""

_GROUP = "concept"


@dataclass(frozen=True, eq=False)
class Concept(ByContent):
    """A thing that is to be learned, or has been.

    Attributes
    ----------
    vectors : Tensor (k, D), float32, CPU, or None
        Learned input token embeddings, those of several text encoders side by side; None before the training.
    widths : Widths
        Of each text encoder's part of them; empty for one of Stable Diffusion 1.
    metadata : mapping of str to str
        How they were made: loss weights, anchors, steps, seed, versions.
    photos : tuple of Tensor (b, H, W, C), 0 to 1
    frames : tuple of tuple of int
        For each batch of photos what it was cut from; see `pictures.sizes.Frame`. Empty where that does not count.
    masks : tuple of Tensor (b, H, W), or None
        1 where the thing is.
    class_images : tuple of Tensor (b, H, W, C), 0 to 1, or None
        Pictures of its class for the prior loss; None has them painted where there is such a loss.
    """

    name: str = setting(
        dataclasses.MISSING,
        "text",
        "Name of the concept and of its embedding file: letters, digits, - and _. Another training of this name "
        "replaces the file",
        shown="my-thing",
        group=_GROUP,
    )
    superclass: str = setting(
        dataclasses.MISSING,
        "text",
        "The ordinary English noun for the concept, such as cat. It is the first anchor and never leaves",
        shown="",
        group=_GROUP,
    )
    vectors: torch.Tensor | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    init_word: str = setting(
        "", "text", "Word to start from. Empty takes the superclass", paper="the superclass", group=_GROUP
    )
    num_vectors: int = setting(
        1,
        "whole number",
        "Token vectors to learn; all are trained. More vectors hold more detail and take more room in the prompt",
        within=(1, 75),
        paper="1",
        group=_GROUP,
    )
    photos: tuple[torch.Tensor, ...] = ()
    masks: tuple[torch.Tensor, ...] | None = None
    class_images: tuple[torch.Tensor, ...] | None = None
    widths: Widths = field(default_factory=dict)
    frames: tuple[Frame, ...] = ()

    def __post_init__(self) -> None:
        check_settings(self)
        object.__setattr__(self, "superclass", " ".join(self.superclass.split()))
        object.__setattr__(self, "init_word", " ".join(self.init_word.split()) or self.superclass)
        object.__setattr__(self, "metadata", dict(self.metadata))
        object.__setattr__(self, "widths", dict(self.widths))

    @classmethod
    def to_learn(
        cls,
        words: Mapping[str, object],
        photos: Images,
        masks: Images | None = None,
        class_images: Images | None = None,
    ) -> Concept:
        """Return a concept that can be learned.

        Parameters
        ----------
        words : mapping
            `name`, `superclass`, and `init_word` and `num_vectors` if wanted, as typed.
        photos, masks, class_images
            See the attributes.

        Raises
        ------
        UserError
            When the name cannot be a file's, or the superclass is empty.
        """
        concept = cls(
            **words,  # type: ignore[arg-type]
            photos=_batches(photos) or (),
            masks=_batches(masks),
            class_images=_batches(class_images),
        )
        if not concept.superclass:
            raise UserError("superclass is empty; type the ordinary noun for the concept, such as cat.")
        return dataclasses.replace(concept, name=check_name(concept.name))

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width of the photos in pixels; of the largest, where there are several sizes."""
        height, width = max((batch.shape[1:3] for batch in self.photos), key=lambda size: size[0] * size[1])
        return height, width

    @property
    def prompt_word(self) -> str:
        """The word to write in a prompt: ``embedding:NAME``."""
        return f"embedding:{self.name}"

    @property
    def phrase(self) -> str:
        """The word before its class noun, as it stands best in a prompt and in a layout."""
        return f"{self.prompt_word} {self.superclass}".rstrip()


def check_distinct_names(concepts: Iterable[Concept]) -> None:
    """Refuse two concepts of one name, whose files would overwrite each other; some disks do not know case.

    Raises
    ------
    UserError
    """
    seen: set[str] = set()
    for concept in concepts:
        if concept.name.casefold() in seen:
            raise UserError(f"Two concepts have the name {quoted(concept.name)}; give each its own in Concept Images.")
        seen.add(concept.name.casefold())


def _batches(tensors: Images | None) -> tuple[torch.Tensor, ...] | None:
    if tensors is None:
        return None
    return (tensors,) if isinstance(tensors, torch.Tensor) else tuple(tensors)
