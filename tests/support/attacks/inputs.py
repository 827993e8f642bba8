"""Odd values for each type of a node's inputs: what widgets, links and other packs may give."""

from __future__ import annotations

import json
import random
from typing import Any

import torch

from . import mutations, prompts

_SIDES = (1, 2, 7, 8, 24, 64, 65)
# What takes long where it is large is drawn small, or out of its range.
_COSTLY = {
    "steps": (0, 1, 2, -1), "epochs": (0, 1, 2), "num_class_images": (0, 1, 2), "pairs": (0, 1, 2),
    "images_per_pair": (0, 1, 2),
    "guided_steps": (0, 1, 3), "max_iterations": (0, 1, 3), "batch_size": (0, 1, 2, 3),
    "gradient_accumulation": (0, 1, 2),
    "num_vectors": (0, 1, 3, 75, 76), "preview_every": (0, 1), "save_every": (0, 1, -1),
}  # fmt: skip


def odd(declared: Any, rng: random.Random) -> Any:
    """Return a value of the type of an input, in or out of its range."""
    kind = declared.io_type
    if kind == "INT":
        numbers = [number for number in mutations.NUMBERS if isinstance(number, int) and number <= 2**64]
        return rng.choice(_COSTLY.get(declared.id, (declared.min, declared.max, *numbers)))
    if kind == "FLOAT":
        return float(rng.choice([number for number in mutations.NUMBERS if abs(number) != 10**400]))
    if kind == "BOOLEAN":
        return rng.random() < 0.5
    if kind == "COMBO":
        # Those with a slash are downloaded.
        return rng.choice((*(each for each in declared.options if "/" not in each), *mutations.TEXTS))
    if kind == "STRING" and declared.id == "boxes" and rng.random() < 0.7:
        drawn = [{"phrase": "a cat", "x0": 0.1, "y0": 0.2, "x1": 0.5, "y1": 0.9}]
        return json.dumps(mutations.changed(drawn, rng))
    if kind == "STRING":
        return _text(rng)
    if kind in ("BOUNDING_BOX", "ARRAY"):
        return boxes(rng)
    return {"IMAGE": _picture, "MASK": _mask, "LATENT": _latent, "CONDITIONING": _conditioning}.get(kind, _nothing)(rng)


def _text(rng: random.Random) -> str:
    way = rng.randrange(4)
    if way == 0:
        return rng.choice(mutations.TEXTS)
    if way == 1:
        return prompts.generated(rng).text
    parts = ("a cat", "a ball", "cat", "{}", "a photo of {}", "embedding:owl cat", "cat, dog", "1e-3", "boat")
    return rng.choice(("\n", ", ", " ")).join(rng.choice(parts) for _ in range(rng.randrange(1, 4)))


def _picture(rng: random.Random) -> Any:
    shape = [rng.choice((0, 1, 2)), rng.choice(_SIDES), rng.choice(_SIDES), rng.choice((1, 2, 3, 3, 3, 4))]
    return _numbers(rng, shape[rng.choice((0, 0, 0, 0, 1)) :])


def _mask(rng: random.Random) -> Any:
    shape = [rng.choice((0, 1, 2, 3)), rng.choice(_SIDES), rng.choice(_SIDES)]
    return _numbers(rng, shape[rng.choice((0, 0, 0, 1)) :])


def _latent(rng: random.Random) -> Any:
    shape = [rng.choice((0, 1, 2)), rng.choice((4, 4, 16)), rng.choice((1, 8)), rng.choice((1, 8))]
    return {"samples": _numbers(rng, shape)}


def _conditioning(rng: random.Random) -> Any:
    return rng.choice(
        ([], [[torch.zeros(1, 77, 768), {}]], [[torch.zeros(1, 77, 1024), {"pooled_output": None}]], None)
    )


def _numbers(rng: random.Random, shape: list[int]) -> torch.Tensor:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(rng.randrange(100)))
    ways = (lambda: values, lambda: values, lambda: values * 300 - 20, lambda: values * torch.nan, lambda: values / 0)
    return rng.choice((*ways, lambda: values.half(), lambda: values.to(torch.bfloat16), lambda: values.double()))()


def boxes(rng: random.Random) -> Any:
    """Return bounding boxes of the host, sound and not."""
    box = {"x": 4, "y": 8.5, "width": 20, "height": 30, "label": "a cat", "score": 0.5, "metadata": {"desc": "a ball"}}
    return mutations.changed([[box, {**box, "x": 30, "label": "a ball"}]], rng)


def _nothing(rng: random.Random) -> None:
    """What a loader gives where a checkpoint lacks a part."""
    return
