"""How good the miniature model is: ``python -m bench.world``.

Paints one, two and three nouns with the stock sampler and asks the judge which are there; measures autoencoder and
judge on scenes that no network was trained on; and keeps ``painted.png``, a sheet to be looked at.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from miniworld.laboratory.contact_sheet import Panel, pixels, stacked
from miniworld.laboratory.models import Laboratory
from miniworld.networks.checkpoint import WEIGHTS, load_small
from miniworld.networks.judge import NOUN_NAMES, THRESHOLD, judge_pictures, load_judge
from miniworld.training.autoencoder import psnr, ready
from miniworld.training.judge import Truths, accuracy, as_decoded, own_things_recognised
from miniworld.training.pictures import truth
from miniworld.world.dataset import render_split
from miniworld.world.drawing import NOUNS
from miniworld.world.instances import INSTANCES, photos

UNSEEN_SPLIT, SCENES = 3, 1000
"""Scenes of a split that no network was trained on."""
COLUMNS = 16


PROMPTS = ("a photo of a {}", "a photo of a {} and a {}", "a photo of a {} , a {} and a {}")


def prompts(size: int, count: int) -> list[tuple[str, ...]]:
    """The nouns of every prompt: all nouns in turn, or so many different random ones, always the same."""
    nouns = list(NOUNS)
    if size == 1:
        return [(nouns[i % len(nouns)],) for i in range(count)]
    rng = np.random.default_rng(8)
    return [tuple(nouns[i] for i in rng.choice(len(nouns), size, replace=False)) for _ in range(count)]


def painted(laboratory: Laboratory, wanted: list[tuple[str, ...]], batch: int, title: str) -> list[np.ndarray]:
    """Paint ``batch`` pictures of every prompt, print the share in which all nouns are found, return one of each."""
    judge, found, missing, shown = load_judge(), [], {}, []
    for i, nouns in enumerate(wanted):
        pictures = laboratory.paint(PROMPTS[len(nouns) - 1].format(*nouns), seed=3000 + i, count=batch)
        presence = torch.cat([verdict.presence() for verdict in judge_pictures(judge, pictures)])
        there = presence[:, [NOUN_NAMES.index(noun) for noun in nouns]] > THRESHOLD
        found += there.all(1).tolist()
        for k, noun in enumerate(nouns):
            missing[noun] = missing.get(noun, 0) + int((~there[:, k]).sum())
        shown.append(pixels(pictures[0].movedim(0, -1)))
    worst = dict(sorted(missing.items(), key=lambda item: -item[1])[:4])
    share = f"all nouns found in {np.mean(found):.3f} of {len(found)} pictures"
    print(f"{title}: {share}; missed most often: {worst}", flush=True)
    return shown


@torch.no_grad()
def networks() -> list[np.ndarray]:
    """Print what autoencoder and judge are worth; return a photo of each own thing, before and after the former."""
    autoencoder = ready(load_small(WEIGHTS / "autoencoder.safetensors")[0])
    scenes = Truths.of_scenes(render_split(UNSEEN_SPLIT, SCENES, truth))
    own = [torch.from_numpy(photos(thing)[0]).permute(0, 3, 1, 2) for thing in INSTANCES.values()]
    decibels = {"scenes": psnr(autoencoder, scenes.pictures), "own things": psnr(autoencoder, torch.cat(own))}
    print("autoencoder, dB:", {name: round(value, 2) for name, value in decibels.items()})
    decoded = as_decoded(autoencoder, scenes.pictures)
    for name, pictures in (("as drawn", scenes.pictures), ("as decoded", decoded)):
        scores = accuracy(load_judge(), pictures, scenes.objects)
        print(f"judge, {name}:", {key: round(value, 3) for key, value in scores.items()}, flush=True)
    shares = own_things_recognised(load_judge(), autoencoder)
    print("judge:", {key: round(value, 3) for key, value in shares.items()}, flush=True)
    firsts = torch.stack([pictures[0] for pictures in own])
    restored = autoencoder.decode(autoencoder.encode(firsts.float().div(255))).clamp(0, 1).mul(255).byte()
    return [picture.permute(1, 2, 0).numpy() for pair in zip(firsts, restored, strict=True) for picture in pair]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("bench-output/world"))
    parser.add_argument("--pictures", type=int, default=200, help="pictures of each kind")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    own = networks()
    laboratory = Laboratory(options.folder / "comfyui")
    batch = 4
    count = -(-options.pictures // batch)
    kinds = ("single nouns", "pairs", "triples")
    shown = [painted(laboratory, prompts(size, count), batch, kind) for size, kind in enumerate(kinds, 1)]
    panels = [
        *(
            Panel(f"painted by the miniature model: {kind}", "", pictures[:COLUMNS])
            for kind, pictures in zip(kinds, shown, strict=True)
        ),
        Panel("own things: a photo, and what the autoencoder makes of it", "", own),
    ]
    stacked(panels, COLUMNS).save(options.folder / "painted.png")


if __name__ == "__main__":
    main()
