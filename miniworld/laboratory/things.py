"""Own things, and the words that are to be learned of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Thing:
    """An own thing: name, class noun, photos (M, H, W, 3) in [0, 1] and, if there are any, their masks (M, H, W)."""

    name: str
    noun: str
    photos: Tensor
    masks: Tensor | None = None

    def concept(self, name: str, masked: bool, **more: Any) -> Any:
        """A ``Concept`` of this name to be learned."""
        from compinv_core.learning.concept import Concept

        shown = (self.masks,) if masked and self.masks is not None else None
        return Concept(name, self.noun, photos=(self.photos,), masks=shown, **more)


@dataclass(frozen=True, eq=False)
class Word:
    """A word to be learned: what `workbench.Workbench.learn` takes."""

    thing: Thing
    name: str
    masked: bool = False
    with_class: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
