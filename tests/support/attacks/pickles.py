"""Files of PyTorch's that no honest program writes: tensors of odd kinds, loops, code, and nested values."""

from __future__ import annotations

import os
import pickle
import random
from pathlib import Path
from typing import Any

import torch

from .mutations import NUMBERS, TEXTS, value


class _Code:
    """Would make a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (os.fspath(self.path),)


def odd_tensor(rng: random.Random) -> Any:
    """Return a tensor that may be no plain matrix of finite numbers."""
    shape = rng.choice(((2, 768), (1, 768), (768,), (), (0,), (0, 768), (76, 768), (2, 3, 768), (3, 767), (2, 1024)))
    plain = torch.rand(shape, generator=torch.Generator().manual_seed(rng.randrange(1000)))
    ways = (
        lambda: plain,
        lambda: plain.half(),
        lambda: plain.bfloat16(),
        lambda: plain.double(),
        lambda: plain.to(torch.float8_e4m3fn),
        lambda: plain.to(torch.complex64),
        lambda: plain.long(),
        lambda: plain > 0.5,
        lambda: plain * torch.nan,
        lambda: plain / 0,
        lambda: plain.to_sparse(),
        lambda: torch.empty(shape, device="meta"),
        lambda: torch.quantize_per_tensor(plain, 0.1, 0, torch.quint8),
        lambda: torch.ones(1).expand(2, 768),
        lambda: torch.ones(1).expand(1 << 20, 1 << 20),
        lambda: plain.flatten().flip(0).requires_grad_(True),
        lambda: torch.nn.Parameter(plain),
        lambda: torch.nested.nested_tensor([torch.ones(2, 768), torch.ones(3, 768)]),
    )
    return rng.choice(ways)()


def odd_content(rng: random.Random, names: tuple[str, ...], trap: Path, depth: int = 3) -> Any:
    """Return what a file might hold, under some of the names that its readers look for."""
    kind = rng.randrange(9 if depth else 4)
    if kind < 3:
        return odd_tensor(rng)
    if kind == 3:
        return rng.choice((_Code(trap), value(rng), rng.choice(NUMBERS), rng.choice(TEXTS), {1, 2}, b"x", 1j, range(3)))
    if kind == 4:
        loop: dict[Any, Any] = {}
        loop[rng.choice(names)] = loop
        return loop
    if kind == 5:
        return [odd_content(rng, names, trap, depth - 1) for _ in range(rng.randrange(4))]
    keys = [rng.choice((*names, *names, "other", 0, None, ("a", 1))) for _ in range(rng.randrange(1, 4))]
    return {key: odd_content(rng, names, trap, depth - 1) for key in keys}


def write_odd(path: Path, rng: random.Random, names: tuple[str, ...], trap: Path) -> None:
    """Write such a file in one of PyTorch's two forms, or as a plain pickle."""
    content = odd_content(rng, names, trap)
    way = rng.randrange(6)
    try:
        if way:
            torch.save(content, path, _use_new_zipfile_serialization=way > 1)
        else:
            path.write_bytes(pickle.dumps(content, protocol=rng.randrange(2, 5)))
    except (RuntimeError, NotImplementedError, TypeError, AttributeError, pickle.PicklingError):
        # Not everything can be saved; half of a file is a file, too.
        path.touch()
