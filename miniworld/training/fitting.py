"""The loop that all networks of the miniature world share: fixed steps, checkpoints, bit-exact resume."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

log = logging.getLogger("compinv.miniworld")


@dataclass(frozen=True)
class Schedule:
    """Warm-up, constant, then linear decay to zero.

    Attributes
    ----------
    steps, decay_from
        Number of steps, and the step at which the decay begins.
    """

    steps: int
    decay_from: int
    warmup: int = 100

    def __call__(self, step: int) -> float:
        rise = min(1.0, (step + 1) / self.warmup)
        fall = min(1.0, (self.steps - step) / max(1, self.steps - self.decay_from))
        return rise * fall


def save_atomically(payload: dict | Tensor, path: Path) -> None:
    temporary = path.with_suffix(".part")
    torch.save(payload, temporary)
    os.replace(temporary, path)


def fit(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    loss: Callable[[torch.Generator], Tensor],
    schedule: Schedule,
    learning_rate: float,
    checkpoint: Path,
    seed: int,
    save_every: int = 100,
    average_decay: float = 0.999,
) -> dict[str, Tensor]:
    """Train a network and return the moving average of its weights.

    Parameters
    ----------
    loss
        Draws a batch with the given generator and returns the scalar loss.
    checkpoint
        File of the training state. Where it exists the run continues from it, bit for bit.

    Returns
    -------
    dict of str to Tensor
        The averaged state dict.
    """
    generator = torch.Generator().manual_seed(seed)
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        generator.set_state(state["generator"])
        average, start = state["average"], state["step"]
        log.info("%s: resumed at step %d of %d", checkpoint.stem, start, schedule.steps)
    running, began = None, time.monotonic()
    for step in range(start, schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * schedule(step)
        optimiser.zero_grad(set_to_none=True)
        value = loss(generator)
        if not value.isfinite():
            raise FloatingPointError(f"{checkpoint.stem}: the loss of step {step} is {value.item()}.")
        value.backward()
        optimiser.step()
        with torch.no_grad():
            weight = max(1 - average_decay, 1 / (step / 4 + 2))
            for name, tensor in network.state_dict().items():
                average[name].lerp_(tensor, weight)
        running = value.item() if running is None else 0.98 * running + 0.02 * value.item()
        done = step + 1
        if done % 50 == 0:
            pace = (time.monotonic() - began) / (done - start)
            log.info(
                "%s: step %d of %d, loss %.5f, %.2f s a step, %.0f min left",
                checkpoint.stem,
                done,
                schedule.steps,
                running,
                pace,
                pace * (schedule.steps - done) / 60,
            )
        if done % save_every == 0 or done == schedule.steps:
            save_atomically(
                {
                    "network": network.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "generator": generator.get_state(),
                    "average": average,
                    "step": done,
                },
                checkpoint,
            )
    return average
