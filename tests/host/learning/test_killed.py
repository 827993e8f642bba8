"""Trainings that are killed at a random step and go on: the same bits as without, with all three methods."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from support import locations
from support.models.training_case import Loaded, anchored_run

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 6
TRAINING_SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from support import host
host.start()
import torch
torch.set_num_threads(1)
from support.models.training_case import anchored_run, load_as_executor
folder, method, save_every = sys.argv[1:]
anchored_run(load_as_executor(), method, 50, int(save_every), run_dir=Path(folder),
             on_step=lambda step, losses: print("step", step, flush=True))
"""


def kill_at(step: int, folder: Path, method: str, save_every: int) -> None:
    script = TRAINING_SCRIPT.format(tests=str(locations.REPOSITORY / "tests"))
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder), method, str(save_every)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        if line.strip() == f"step {step}":
            process.send_signal(signal.SIGKILL)
            break
    process.wait(60)
    assert process.returncode == -signal.SIGKILL, process.stderr.read()


def learned(result: Any) -> dict[str, torch.Tensor]:
    """Return everything that a training gave: the words, and what it made of the model, before any rounding of rank."""
    words = {concept.name: concept.vectors for concept in result.concepts}
    return words | {name: values[0] for name, [(_, (_, values), *_)] in result.model.patches.items()}


@pytest.mark.parametrize(
    ("method", "save_every"), [("textual_inversion", 2), ("custom_diffusion", 1), ("dreambooth", 2)]
)
def test_killed_at_a_random_step_and_resumed_gives_the_same_bits(
    loaded: Loaded, tmp_path: Path, method: str, save_every: int
) -> None:
    step = random.randint(save_every + 1, STEPS - 1)
    kill_at(step, tmp_path, method, save_every)
    steps: list[int] = []
    resumed = anchored_run(
        loaded, method, STEPS, save_every, run_dir=tmp_path, on_step=lambda step, losses: steps.append(step)
    )
    # Killed before or after a save.
    assert steps[0] - 1 in range(step - save_every, step + 1) and (steps[0] - 1) % save_every == 0, (step, steps)
    assert steps[-1] == STEPS
    straight = anchored_run(loaded, method, STEPS, save_every)
    assert resumed.history == straight.history and "anchor" in resumed.history
    first, second = learned(resumed), learned(straight)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in second)
    assert len(first) == {"textual_inversion": 1, "custom_diffusion": 8}.get(method, len(first))
