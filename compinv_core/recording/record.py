"""Attention recorded over a sampling run: reduced step by step, bounded in memory, found again by the run's result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch

from ..basics.content import ByContent
from ..basics.errors import UserError
from ..boxes.places import Place
from ..spatial.attention import BlockMaps, combined

MEMORY_LIMIT = 64 * 2**20
"""Bytes that one recording holds: the maps of all its runs, with the one in progress, and copies of their results."""

_BYTES_PER_VALUE = 4


@dataclass(frozen=True, eq=False)
class AttentionFrame(ByContent):
    """The attention at one sampling step.

    Parameters
    ----------
    step : int
        Counted from 0.
    sigma : float
        Noise level σ.
    maps : tuple of BlockMaps
        Of the evaluation that begins the step, one per resolution, the finest first; float32, CPU.
    unguided : tuple of BlockMaps, optional
        The same before layout guidance changed the latents of this step; None where it did not.
    """

    step: int
    sigma: float
    maps: tuple[BlockMaps, ...]
    unguided: tuple[BlockMaps, ...] | None = None

    @property
    def size_in_bytes(self) -> int:
        """Memory that the maps take."""
        return _size(self.maps) + _size(self.unguided or ())


@dataclass(frozen=True, eq=False)
class AttentionRecord(ByContent):
    """The attention of one sampling run.

    Parameters
    ----------
    phrases : tuple of str, length P
    boxes : tuple of Place or None, length P
        Box or mask of each phrase, where layout guidance had one.
    frames : tuple of AttentionFrame
        In the order of the steps; steps at which the prompt was not in use are missing.
    steps : int
        Steps of the run.
    latent_height, latent_width : int
        Cells of the latents.
    model : str
        Name for reports.
    """

    prompt: str
    phrases: tuple[str, ...]
    boxes: tuple[Place | None, ...]
    frames: tuple[AttentionFrame, ...]
    steps: int
    latent_height: int
    latent_width: int
    sampler: str = ""
    seed: int | None = None
    model: str = ""

    @property
    def images(self) -> int:
        """Number of images of the batch; 0 where nothing was recorded."""
        return self.frames[0].maps[0].values.shape[0] if self.frames else 0

    @property
    def size_in_bytes(self) -> int:
        """Memory that the maps take."""
        return sum(frame.size_in_bytes for frame in self.frames)


@dataclass(frozen=True, eq=False)
class AttentionRecording(ByContent):
    """What Record Attention hands on: empty at first, filled by every sampling run of the recorded model.

    Several runs are kept, since one graph may have two samplers on the model, and since the host may take a sampler's
    result from its cache instead of sampling anew. The result tells which run is meant.

    Parameters
    ----------
    limit : int
        Bytes of maps and results; the oldest runs go as a new one grows. Only a run whose result alone is larger is
        kept in spite of it.
    """

    prompt: str
    phrases: tuple[str, ...]
    limit: int = MEMORY_LIMIT
    _runs: list[tuple[torch.Tensor, AttentionRecord]] = field(default_factory=list, init=False, repr=False)

    @property
    def size_in_bytes(self) -> int:
        """Memory that the finished runs take."""
        return sum(_run_size(samples, record) for samples, record in self._runs)

    def accumulator(self, steps: int, latents: torch.Tensor) -> AttentionAccumulator:
        """Begin a run, for which the oldest runs make room as it grows.

        Parameters
        ----------
        latents : Tensor (B, C, H, W)
            Of the shape and type of its result.
        """
        result = latents.nbytes
        return AttentionAccumulator(steps, max(self.limit - result, 0), lambda size: self._make_room(result + size))

    def keep(self, samples: torch.Tensor, record: AttentionRecord) -> None:
        """Add a finished run.

        Parameters
        ----------
        samples : Tensor (B, C, H, W)
            Its result; copied.
        """
        self._runs[:] = [run for run in self._runs if not _same(run[0], samples)]
        self._make_room(_run_size(samples, record))
        self._runs.append((samples.detach().cpu().clone(), record))

    def record_of(self, samples: torch.Tensor) -> AttentionRecord:
        """Find the run that ended in these latents.

        Parameters
        ----------
        samples : Tensor (B, C, H, W)

        Returns
        -------
        AttentionRecord
            With at least one frame.

        Raises
        ------
        UserError
            When no run of the recorded model has this result, or the prompt was never in use in it.
        """
        record = next((kept for result, kept in reversed(self._runs) if _same(result, samples)), None)
        if record is None:
            raise UserError(
                "Show Attention: no recorded sampling has the result in `samples`; connect the model of Record "
                "Attention to the sampler and the sampler's own LATENT to `samples`, and change the seed if the "
                "sampler's result is an old one from the cache."
            )
        if not record.frames:
            raise UserError(
                f'Show Attention: the prompt "{record.prompt}" was not in use at any step of this sampling; give its '
                "conditioning a range of steps that the sampler passes."
            )
        return record

    def _make_room(self, size: int) -> None:
        while self._runs and self.size_in_bytes + size > self.limit:
            del self._runs[0]


class AttentionAccumulator:
    """Collects the frames of one run within a limit of memory.

    Parameters
    ----------
    steps : int
        Steps of the run; each may have two sets of maps, before and after guidance.
    limit : int
        Bytes for all frames. Maps that are too fine for it are averaged over 2×2 cells.
    make_room : callable (bytes) -> None
        Called with the size of all frames before a frame is added.
    """

    def __init__(
        self, steps: int, limit: int = MEMORY_LIMIT, make_room: Callable[[int], None] = lambda size: None
    ) -> None:
        self._allowance = limit // (2 * max(steps, 1))
        self._make_room = make_room
        self._frames: dict[int, AttentionFrame] = {}

    def add(
        self, step: int, sigma: float, maps: Iterable[BlockMaps], unguided: Iterable[BlockMaps] | None = None
    ) -> None:
        """Add the attention of a step; without any map the step stays missing.

        Parameters
        ----------
        maps : iterable of BlockMaps
            One per block; any device.
        unguided : iterable of BlockMaps, optional
        """
        merged = merge_maps(maps, self._allowance)
        if merged:
            before = merge_maps(unguided or (), self._allowance) or None
            frame = AttentionFrame(step, sigma, merged, before)
            self._make_room(sum(each.size_in_bytes for each in (*self._frames.values(), frame)))
            self._frames[step] = frame

    def frames(self) -> tuple[AttentionFrame, ...]:
        """Return what was added, in the order of the steps."""
        return tuple(self._frames[step] for step in sorted(self._frames))


def merge_maps(maps: Iterable[BlockMaps], limit: int | None = None) -> tuple[BlockMaps, ...]:
    """Average the maps of each resolution, weighted by their numbers of blocks.

    Parameters
    ----------
    maps : iterable of BlockMaps
        `values` (B, P, h, w) with any resolutions, the same B and P.
    limit : int, optional
        Bytes of the result. While it is larger, the finest maps are averaged over 2×2 cells, which leaves each phrase's
        share of attention per area as it is.

    Returns
    -------
    tuple of BlockMaps
        One per resolution, the finest first; float32, CPU.
    """
    merged = _by_resolution(each.mapped(lambda tensor: tensor.detach().float()) for each in maps)
    while limit is not None and _size(merged) > limit and merged[0].values.shape[-2:].numel() > 1:
        merged = _by_resolution([_halved(merged[0]), *merged[1:]])
    return tuple(each.mapped(torch.Tensor.cpu) for each in merged)


def _by_resolution(maps: Iterable[BlockMaps]) -> list[BlockMaps]:
    groups: dict[torch.Size, list[BlockMaps]] = {}
    for each in maps:
        groups.setdefault(each.values.shape[-2:], []).append(each)
    ordered = sorted(groups.items(), key=lambda item: -item[0].numel())
    return [_mean(group) for _, group in ordered]


def _mean(group: Sequence[BlockMaps]) -> BlockMaps:
    blocks = [each.blocks for each in group]

    def mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        weighted = [tensor * number for tensor, number in zip(tensors, blocks, strict=True)]
        return torch.stack(weighted).sum(0) / sum(blocks)

    return combined(group, sum(blocks), mean)


def _halved(maps: BlockMaps) -> BlockMaps:
    values = torch.nn.functional.avg_pool2d(maps.values, 2, ceil_mode=True, count_include_pad=False)
    return replace(maps, values=values)


def _size(maps: Iterable[BlockMaps]) -> int:
    return sum(each.values.numel() * _BYTES_PER_VALUE for each in maps)


def _run_size(samples: torch.Tensor, record: AttentionRecord) -> int:
    return samples.nbytes + record.size_in_bytes


def _same(result: torch.Tensor, samples: torch.Tensor) -> bool:
    # The host may hand the result on in another floating-point type.
    samples = samples.detach().cpu()
    return result.shape == samples.shape and torch.allclose(result.to(samples), samples, rtol=0, atol=0, equal_nan=True)
