"""Which pictures of noun pairs a layout data set is to have, and in which order they are painted.

All numbers follow from the place of a picture in the plan, so that a data set that was interrupted is the same in the
end as one that was not. Plans may have millions of pictures, so they are listed as they are needed.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from .dataset import Pair


@dataclass(frozen=True)
class PlannedImage:
    """One picture to be painted.

    Attributes
    ----------
    image_id : int
        From 1; does not change when more pictures per pair are asked for.
    pair : int
        Index of the pair.
    nouns : tuple of (str, str)
        In the order of the prompt: every second picture of a pair has them swapped.
    seed : int
        In [0, 2^63).
    """

    image_id: int
    pair: int
    nouns: Pair
    seed: int

    @property
    def file_name(self) -> str:
        """Name of the picture's file, in the data set's folder of images."""
        return f"{self.image_id:06d}.png"


@dataclass(frozen=True)
class Plan:
    """All pictures in the order of their ids: one of every pair before the next of any, nouns swapped in every second.

    Attributes
    ----------
    pairs : tuple of pairs of str
    """

    pairs: tuple[Pair, ...]
    images_per_pair: int
    seed: int

    def __len__(self) -> int:
        return len(self.pairs) * self.images_per_pair

    def __iter__(self) -> Iterator[PlannedImage]:
        for number in range(self.images_per_pair):
            for index, pair in enumerate(self.pairs):
                nouns = (pair[1], pair[0]) if number % 2 else pair
                image_id = number * len(self.pairs) + index + 1
                yield PlannedImage(image_id, index, nouns, _image_seed(self.seed, pair, number))


def choose_pairs(vocabulary: Sequence[str], count: int, seed: int) -> tuple[Pair, ...]:
    """Draw so many different pairs of at least two nouns that all nouns occur equally often, as far as possible.

    All pairs there are, where there are fewer.
    """
    everything = list(itertools.combinations(vocabulary, 2))
    shuffle = torch.randperm(len(everything), generator=torch.Generator().manual_seed(seed)).tolist()
    used = dict.fromkeys(vocabulary, 0)
    queue = [((0, 0), place, everything[index]) for place, index in enumerate(shuffle)]
    chosen: list[Pair] = []
    while queue and len(chosen) < count:
        known, place, pair = heapq.heappop(queue)
        uses = (used[pair[0]] + used[pair[1]], max(used[pair[0]], used[pair[1]]))
        if uses != known:
            # Its nouns were used since. Uses only grow, so what leaves the queue unchanged is used least.
            heapq.heappush(queue, (uses, place, pair))
            continue
        chosen.append(pair)
        for noun in pair:
            used[noun] += 1
    return tuple(chosen)


def batches(images: Iterable[PlannedImage], batch_size: int) -> Iterator[list[PlannedImage]]:
    """Group pictures of the same prompt, in the order of their ids, so that each group can be painted at once.

    A group has at most `batch_size` and reaches at most ``2 batch_size`` rounds ahead, so pairs stay balanced whenever
    the work is interrupted.
    """
    waiting: dict[Pair, list[PlannedImage]] = {}
    for image in images:
        group = waiting.setdefault(image.nouns, [])
        group.append(image)
        if len(group) == batch_size:
            yield waiting.pop(image.nouns)
    yield from waiting.values()


def _image_seed(seed: int, pair: Pair, number: int) -> int:
    text = json.dumps([seed, *pair, number])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
