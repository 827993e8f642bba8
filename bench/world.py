"""How good the miniature model is: ``python -m bench.world``.

Paints single nouns and pairs with the stock sampler and asks the judge which nouns are there. Prints the shares, the
judge's and the autoencoder's own scores, and keeps the pictures as two sheets to be looked at.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from miniworld.checkpoint import WEIGHTS, load_small
from miniworld.contact_sheet import Panel, render
from miniworld.drawing import NOUNS
from miniworld.judge import NOUN_NAMES, THRESHOLD, judge_pictures, load_judge
from miniworld.laboratory import Laboratory


def prompts(pairs: bool, count: int) -> list[tuple[str, ...]]:
    """The nouns of every prompt: all nouns in turn, or different random pairs, always the same."""
    nouns = list(NOUNS)
    if not pairs:
        return [(nouns[i % len(nouns)],) for i in range(count)]
    rng = np.random.default_rng(8)
    return [tuple(nouns[i] for i in rng.choice(len(nouns), 2, replace=False)) for _ in range(count)]


def measure(laboratory: Laboratory, wanted: list[tuple[str, ...]], batch: int, folder: Path, title: str) -> None:
    """Paint ``batch`` pictures of every prompt, print the share in which all nouns are found, and keep a sheet."""
    judge, found, missing, sheet = load_judge(), [], {}, []
    for i, nouns in enumerate(wanted):
        pictures = laboratory.paint("a photo of a " + " and a ".join(nouns), seed=3000 + i, count=batch)
        presence = torch.cat([verdict.presence() for verdict in judge_pictures(judge, pictures)])
        there = presence[:, [NOUN_NAMES.index(noun) for noun in nouns]] > THRESHOLD
        found += there.all(1).tolist()
        for k, noun in enumerate(nouns):
            missing[noun] = missing.get(noun, 0) + int((~there[:, k]).sum())
        sheet += [np.uint8(p.permute(1, 2, 0).numpy() * 255) for p in pictures[:2]]
    worst = dict(sorted(missing.items(), key=lambda item: -item[1])[:4])
    share = f"all nouns found in {np.mean(found):.3f} of {len(found)} pictures"
    print(f"{title}: {share}; missed most often: {worst}", flush=True)
    render(Panel(title, "", sheet), 16).save(folder / f"{title.replace(' ', '-')}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("bench-output/world"))
    parser.add_argument("--pictures", type=int, default=200, help="pictures of each kind")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in ("autoencoder", "judge"):
        print(f"{name}: {json.dumps(load_small(WEIGHTS / f'{name}.safetensors')[1])}")
    laboratory = Laboratory(options.folder / "comfyui")
    batch = 4
    count = -(-options.pictures // batch)
    measure(laboratory, prompts(False, count), batch, options.folder, "single nouns")
    measure(laboratory, prompts(True, count), batch, options.folder, "pairs")


if __name__ == "__main__":
    main()
