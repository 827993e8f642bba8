"""Our training step against the same step in plain diffusers, on the same weights, for the three methods.

    .venv/bin/python bench/training_step.py                   # full-size random SD 1, 256 pixels, batch 1
    .venv/bin/python bench/training_step.py --kind small --size 128 --batch 2 --steps 10
    .venv/bin/python bench/training_step.py --method custom_diffusion
    .venv/bin/python bench/training_step.py --method dreambooth --apart # two such trainings do not fit into 24 GB

Custom Diffusion and DreamBooth have a class picture beside every photo, in the same forward pass.

The steps of the two sides alternate in one process, so that other work on the machine meets both alike; the table
gives the median time of a step, the median processor time (on a shared CPU the fairer one), and the ratios. Peak
resident memory during the steps is taken in one process per side, which holds that side alone. The losses of the two
sides are compared as well: a faster step that computes something else would not count. ``--apart`` runs one side after
the other instead, without that comparison. Needs diffusers (a development dependency) and no trained weights.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]

TEMPLATE = "a photo of {}"
SUPERCLASS = "cat"
LEARNING_RATES = {"textual_inversion": 0.005, "custom_diffusion": 2e-5, "dreambooth": 1e-5}
Times = dict[str, list[tuple[float, float]]]
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    options = parse_options()
    if options.side:
        print(json.dumps(measure(options)))
        return
    runs = {side: child(side) for side in ("ours", "diffusers", *(() if options.apart else ("both",)))}
    report(options, runs)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=tuple(LEARNING_RATES), default="textual_inversion")
    parser.add_argument("--kind", choices=("full", "small"), default="full", help="size of the random checkpoint")
    parser.add_argument("--size", type=int, default=256, help="side of the photos in pixels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4, help="timed steps of each side, after one to warm up")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice")
    parser.add_argument("--apart", action="store_true", help="never hold both sides in memory")
    parser.add_argument("--side", choices=("both", "ours", "diffusers"), default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def child(side: str) -> dict[str, Any]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run the steps of one side, or of both in turn; return times in seconds, losses and peak memory in MB."""
    from support import checkpoints, host

    base = host.start()
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    checkpoint = checkpoints.build(options.kind, torch.float16)
    times: Times = {"ours": [], "diffusers": []}
    losses: dict[str, list[float]] = {"ours": [], "diffusers": []}
    photo, of_class = torch.rand(2, 1, options.size, options.size, 3, generator=torch.Generator().manual_seed(0))
    plain = PlainSide(options, checkpoint) if options.side != "ours" else None
    peak = 0.0
    if options.side == "diffusers":
        assert plain is not None
        plain.draw()
        with resident_memory() as memory:
            for _ in range(options.steps + 1):
                plain.step(times, losses)
        peak = memory[0]
    else:
        peak = ours(options, checkpoint, base, (photo, of_class), plain, times, losses)
    return {"times": times, "losses": losses, "peak": peak}


def configuration(options: argparse.Namespace) -> Any:
    """Return the settings of the method, short and with one sentence."""
    from compinv_core.learning.settings import InversionConfig
    from compinv_core.learning.tuning_settings import CustomDiffusionConfig, DreamBoothConfig

    kinds = {
        "textual_inversion": InversionConfig,
        "custom_diffusion": CustomDiffusionConfig,
        "dreambooth": DreamBoothConfig,
    }
    return kinds[options.method](
        steps=options.steps + 1, batch_size=options.batch, learning_rate=LEARNING_RATES[options.method],
        templates=(TEMPLATE,), seed=0,
        **({} if options.method == "textual_inversion" else {"num_class_images": 1}),
    )  # fmt: skip


class PlainSide:
    """The diffusers loop with the random numbers of our loop."""

    def __init__(self, options: argparse.Namespace, checkpoint: Path) -> None:
        import torch

        from compinv_core.host.family import SD1
        from support.models.diffusers_inversion import DiffusersInversion

        config = configuration(options)
        trains = SD1.trained_weights[config.method.trains]
        self.batch, self.prior = options.batch, options.method != "textual_inversion"
        self.loop = DiffusersInversion(
            options.kind,
            checkpoint,
            [TEMPLATE],
            SUPERCLASS,
            config.learning_rate,
            trains,
            SUPERCLASS,
        )
        self.generator = torch.Generator().manual_seed(0)
        self.latents = self.of_class = torch.zeros(1, 4, options.size // 8, options.size // 8)

    def draw(self) -> None:
        """Stand in for encoded pictures, where only time and memory matter."""
        import torch

        generator = torch.Generator().manual_seed(1)
        self.latents, self.of_class = torch.randn((2, *self.latents.shape), generator=generator)

    def step(self, times: Times, losses: dict[str, list[float]]) -> None:
        import torch

        torch.randint(1, (1,), generator=self.generator)
        latents = self.latents[torch.randint(1, (self.batch,), generator=self.generator)]
        if self.prior:
            chosen = torch.randint(1, (self.batch,), generator=self.generator)
            latents = torch.cat([latents, self.of_class[chosen]])
        timesteps = torch.randint(1000, (len(latents),), generator=self.generator)
        noise = torch.randn(latents.shape, generator=self.generator)
        start = clocks()
        of_class = self.batch if self.prior else 0
        losses["diffusers"].append(self.loop.step(latents, noise, timesteps, 0, of_class))
        times["diffusers"].append(since(start))


def ours(
    options: argparse.Namespace,
    checkpoint: Path,
    base: Path,
    pictures: tuple[Any, Any],
    plain: PlainSide | None,
    times: Times,
    losses: dict[str, list[float]],
) -> float:
    """Train through the product's own entry, with a step of the other side after each of ours."""
    import comfy.sd

    from compinv_core.host.learning.photos import encode_photos
    from compinv_core.host.learning.train import train_concepts
    from compinv_core.learning.concept import Concept
    from compinv_core.training.events import Event, nobody

    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
        str(checkpoint), embedding_directory=[str(base / "models" / "embeddings")]
    )
    photo, of_class = pictures
    if plain is not None:
        plain.latents, plain.of_class = (encode_photos(model, vae, pixels, None, 8, nobody)[0] for pixels in pictures)
    config = configuration(options)
    given = (of_class,) if config.prior_weight else None
    last = [clocks()]

    def on_event(event: Event) -> None:
        # The first event of a work only says where it begins.
        if event.work != "training" or event.seconds_left is None:
            return
        losses["ours"].append(event.losses["loss"])
        times["ours"].append(since(last[0]))
        if plain is not None:
            plain.step(times, losses)
        last[0] = clocks()

    with resident_memory() as memory:
        last[0] = clocks()
        concept = Concept("bench", SUPERCLASS, photos=(photo,), class_images=given)
        train_concepts(model, clip, vae, config, [concept], on_event=on_event)
    return memory[0]


def clocks() -> tuple[float, float]:
    """Return wall-clock and processor time in seconds."""
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> tuple[float, float]:
    """Return the seconds since `start` on both clocks."""
    now = clocks()
    return now[0] - start[0], now[1] - start[1]


@contextmanager
def resident_memory() -> Iterator[list[float]]:
    """Watch the process's resident memory; yields a list whose element becomes the peak in MB."""
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_MB)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def report(options: argparse.Namespace, runs: dict[str, dict[str, Any]]) -> None:
    timed = {side: runs.get("both", runs[side])["times"][side] for side in ("diffusers", "ours")}
    # The first step of each side warms up and, on our side, includes loading the model.
    columns = {
        side: [statistics.median(step[clock] for step in steps[1:]) for clock in (0, 1)] + [runs[side]["peak"]]
        for side, steps in timed.items()
    }
    print(
        f"Step of {options.method}, random SD 1 ({options.kind}), {options.size}x{options.size}, "
        f"batch {options.batch}, float32, median of {options.steps} {'' if 'both' in runs else 'not '}alternating steps"
    )
    print(f"{'':12}{'s/step':>10}{'cpu s/step':>12}{'peak MB':>10}")
    for side, (wall, processor, peak) in columns.items():
        print(f"{side:12}{wall:10.2f}{processor:12.2f}{peak:10.0f}")
    ratios = [ours_ / theirs for ours_, theirs in zip(columns["ours"], columns["diffusers"], strict=True)]
    print(f"{'ratio':12}{ratios[0]:10.3f}{ratios[1]:12.3f}{ratios[2]:10.3f}")
    if "both" in runs:
        losses = runs["both"]["losses"]
        difference = max(abs(a - b) for a, b in zip(losses["ours"], losses["diffusers"], strict=True))
        print(f"largest difference of the losses of the two sides: {difference:.1e}")


if __name__ == "__main__":
    main()
