"""Which pictures of noun pairs a layout data set is to have, and in which order they are painted.

All numbers follow from the place of a picture in the plan, so that a data set that was interrupted is the same in the
end as one that was not.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from .layout_dataset import Pair


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


def choose_pairs(vocabulary: Sequence[str], count: int, seed: int) -> tuple[Pair, ...]:
    """Draw different pairs of nouns so that all nouns occur equally often, as far as possible.

    Parameters
    ----------
    vocabulary : sequence of str
        At least two nouns.
    count : int
        Pairs wanted; all there are, where there are fewer.
    seed : int

    Returns
    -------
    tuple of pairs of str
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


def plan_images(pairs: Sequence[Pair], images_per_pair: int, seed: int) -> list[PlannedImage]:
    """List all pictures, one of every pair before the next of any, with nouns swapped in every second one.

    Parameters
    ----------
    pairs : sequence of pairs of str
    images_per_pair : int
    seed : int

    Returns
    -------
    list of PlannedImage
        In the order of their ids.
    """
    return [
        PlannedImage(
            number * len(pairs) + index + 1,
            index,
            (pair[1], pair[0]) if number % 2 else pair,
            _image_seed(seed, pair, number),
        )
        for number in range(images_per_pair)
        for index, pair in enumerate(pairs)
    ]


def batches(images: Sequence[PlannedImage], batch_size: int) -> Iterator[list[PlannedImage]]:
    """Group pictures of the same prompt, so that each group can be painted at once.

    A group reaches at most ``2 batch_size`` rounds ahead, so pairs stay balanced whenever the work is interrupted.

    Parameters
    ----------
    images : sequence of PlannedImage
        In the order of their ids.
    batch_size : int

    Yields
    ------
    list of PlannedImage
        At least one, at most `batch_size`.
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
