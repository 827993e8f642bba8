"""Photos of one concept that have several sizes; every batch is of one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .encoded import InversionData


class PhotosOfSizes:
    """Encoded photos in groups of one size each, drawn from as if they were one.

    A row counts through the groups. A batch takes its size from a photo drawn among all, so that each photo is as
    likely as any other.

    Parameters
    ----------
    groups : sequence of InversionData
        At least one, each with latents of its own size.
    """

    def __init__(self, groups: Sequence[InversionData]) -> None:
        self.groups = tuple(groups)
        self._starts = [sum(map(len, self.groups[:index])) for index in range(len(self.groups))]

    def __len__(self) -> int:
        return sum(map(len, self.groups))

    @property
    def has_weights(self) -> bool:
        """See `InversionData`."""
        return any(group.has_weights for group in self.groups)

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return the rows (count,) of photos of one size, drawn with repetition."""
        number = self._group_of(int(torch.randint(len(self), (1,), generator=generator)))
        return self._starts[number] + self.groups[number].draw(count, generator)

    def take(self, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See `Encoded`; the rows are of one size, here and below."""
        group, inside = self._at(rows)
        return group.take(inside, generator)

    def means_of(self, rows: torch.Tensor) -> torch.Tensor:
        """See `Encoded`."""
        group, inside = self._at(rows)
        return group.means_of(inside)

    def frames_of(self, rows: torch.Tensor) -> torch.Tensor | None:
        """See `Encoded`."""
        group, inside = self._at(rows)
        return group.frames_of(inside)

    def weights_of(self, rows: torch.Tensor) -> torch.Tensor:
        """See `InversionData`."""
        group, inside = self._at(rows)
        return group.weights_of(inside)

    def by_size(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """See `Encoded`."""
        numbers = torch.tensor([self._group_of(row) for row in rows.tolist()])
        groups = ((numbers == number).nonzero()[:, 0] for number in range(len(self.groups)))
        return [positions for positions in groups if len(positions)]

    def _at(self, rows: torch.Tensor) -> tuple[InversionData, torch.Tensor]:
        number = self._group_of(int(rows[0]))
        return self.groups[number], rows - self._starts[number]

    def _group_of(self, row: int) -> int:
        return max(index for index, start in enumerate(self._starts) if start <= row)
