"""How long each part of a training of the world takes, and how large it is: everything is bounded by the clock."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

log = logging.getLogger("compinv.miniworld")
WARMUP = 80
"""Steps in which a learning rate rises."""


@dataclass(frozen=True)
class Plan:
    """A run of so many seconds.

    Attributes
    ----------
    seconds
        From the beginning until the generator's weights are written.
    scratch
        Folder of the rendered pictures and of what one process leaves for another.
    into
        Folder of the weights.
    renderers, capacity
        Processes that render, and how many pictures each may render.
    batch
        Pictures in a step of the generator; the other networks' batches follow from it.
    began
        Wall clock in seconds, the same for all processes.
    """

    seconds: float
    scratch: Path
    into: Path
    renderers: int
    capacity: int
    batch: int = 512
    began: float = field(default_factory=time.time)

    RENDERING, AUTOENCODER, JUDGE = 0.3, 0.24, 0.14
    """Shares of the seconds: rendering from the beginning on, and how long the two take."""

    @property
    def patience(self) -> float:
        """Seconds to wait for what another process makes, which has to start first."""
        return self.seconds + 180

    def elapsed(self) -> float:
        return time.time() - self.began

    def say(self, message: str, *values: object) -> None:
        """Log a line with the time that has passed."""
        log.info(f"%5.0f s  {message}", self.elapsed(), *values)


@dataclass
class Clock:
    """Progress through a stretch of time, from 0 to 1."""

    seconds: float
    began: float = field(default_factory=time.time)

    @property
    def progress(self) -> float:
        return min(1.0, (time.time() - self.began) / max(self.seconds, 1e-3))

    def rate(self, step: int, constant: float) -> float:
        """Share of the learning rate: a rise, the whole until ``constant`` of the time, then a linear fall to 0."""
        return min(1.0, (step + 1) / WARMUP) * min(1.0, (1 - self.progress) / (1 - constant))


def device() -> torch.device:
    """The graphics card, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half_precision() -> contextlib.AbstractContextManager:
    """Multiply in bfloat16 on a graphics card."""
    on_card = device().type == "cuda"
    return torch.autocast("cuda", torch.bfloat16) if on_card else contextlib.nullcontext()


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def hand_over(payload: object, path: Path) -> None:
    """Write a file that another process waits for."""
    torch.save(payload, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def begin_process(seed: int) -> None:
    """Set up a process that trains one network."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
