"""Train the miniature world: ``python -m miniworld.train --minutes 7``.

Many processes render, one trains the autoencoder, one the judge, and this one UNet and text encoder, on a graphics card
if there is one. Everything is bounded by the clock and leaves usable weights in ``miniworld/weights/``.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import shutil
from pathlib import Path

import torch

from .networks.checkpoint import WEIGHTS, load_small
from .training import autoencoder
from .training.generator import Compilation, Generator, GrowingLatents, train_generator
from .training.judge import train_judge
from .training.pictures import Store, scratch_folder, start_renderers, wait_until
from .training.plan import Plan, begin_process, device, hand_over

BYTES_PER_PICTURE = 53_000
NETWORKS = ("autoencoder", "generator", "judge")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=7.0, help="from the beginning to the generator's weights")
    parser.add_argument("--only", choices=NETWORKS, nargs="+", default=NETWORKS, help="the others stay as they are")
    parser.add_argument("--further", action="store_true", help="start from the weights in git, not from the seeds")
    parser.add_argument(
        "--words-only", action="store_true", help="of the generator, train the text encoder and the cross-attention"
    )
    parser.add_argument("--into", type=Path, default=WEIGHTS, help="folder of the weights")
    parser.add_argument("--scratch", type=Path, help="folder of the pictures; by default in memory or temporary")
    parser.add_argument("--pictures", type=int, default=300_000, help="rendered at most")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--renderers", type=int, default=max(1, (os.cpu_count() or 2) - 3), help="processes")
    options = parser.parse_args()
    begin_process(seed=2)
    scratch = options.scratch or scratch_folder(options.pictures * BYTES_PER_PICTURE)
    capacity = max(8, options.pictures // options.renderers)
    options.into.mkdir(parents=True, exist_ok=True)
    plan = Plan(60 * options.minutes, scratch, options.into, options.renderers, capacity, options.batch)
    try:
        train(plan, set(options.only), options.further, options.words_only)
    finally:
        if options.scratch is None:
            shutil.rmtree(scratch, ignore_errors=True)


def train(plan: Plan, wanted: set[str], further: bool = False, words_only: bool = False) -> None:
    """Train the wanted networks by a plan."""
    plan.say("training %s for %.0f s on %s", ", ".join(sorted(wanted)), plan.seconds, device_name())
    store, context = Store(plan, create=True), multiprocessing.get_context("spawn")
    children = start_renderers(plan, context)
    given = load_small(WEIGHTS / "autoencoder.safetensors")[0] if further or "autoencoder" not in wanted else None
    handed = plan.scratch / autoencoder.FILE
    try:
        if "autoencoder" in wanted:
            encoding = context.Process(target=autoencoder.train_autoencoder, args=(plan, given))
            encoding.start()
            children.append(encoding)
        else:
            hand_over(given, handed)
        # Compiling takes its time on the processor while the card is busy with the autoencoder.
        model, scale = Generator.stored() if further else (Generator(), None)
        model.to(device())
        model.unet.to(memory_format=torch.channels_last)
        compilation = Compilation(model, plan) if "generator" in wanted else None
        wait_until(handed.exists, plan.patience, "autoencoder", lambda: children[-1].exitcode in (None, 0))
        weights = torch.load(handed, weights_only=True)
        if "judge" in wanted:
            alone = wanted == {"judge"}
            judging = context.Process(
                target=train_judge, args=(plan, weights, (0.5 if alone else plan.JUDGE) * plan.seconds)
            )
            judging.start()
            children.append(judging)
        if compilation:
            compilation.wait(0.35 * plan.seconds - plan.elapsed())
            wait_until(lambda: store.count() >= min(1000, plan.capacity), plan.patience, "picture")
            data = GrowingLatents(store, autoencoder.ready(weights))
            train_generator(model, compilation, data, plan, scale, words_only)
        if "judge" in wanted:
            judging.join()
    finally:
        for child in children:
            if child.is_alive():
                child.terminate()
    logging.getLogger("compinv.miniworld").info("weights: %s", sorted(path.name for path in plan.into.iterdir()))


def device_name() -> str:
    return torch.cuda.get_device_name() if device().type == "cuda" else "the processor"


if __name__ == "__main__":
    main()
