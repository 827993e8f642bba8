"""The main job on a real ComfyUI: learn a cat from five photos and compose it with something else.

``python -m miniworld.demo`` starts the host with the pack, learns the concept twice from whole photos, as the paper
does (plain textual inversion, and with semantic inversion), and paints the 2×2 ablation of semantic and spatial
inversion with the same seeds. Pictures and scores lie in ``demo-output/`` afterwards. What is there already is reused,
unless it was made with other settings or weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from compinv_core.basics.atomic_file import replacing

from .laboratory.comfyui_server import ComfyServer
from .laboratory.contact_sheet import Panel, contact_sheet
from .laboratory.judging import judged_rows, summary
from .laboratory.recipe import ANCHOR_WORDS, GUIDANCE, INVERSION, PAINTING, TEMPLATES_WITH_CLASS
from .networks.checkpoint import CHECKPOINT_NAME, WEIGHTS, assemble
from .world.instances import INSTANCES, PHOTOS, Instance, photos
from .world.placing import SIDE

log = logging.getLogger("compinv.miniworld")
OWN, OTHER = "my-cat", "boat"
SEED, PICTURES = 0, 8
PREDICTOR = "miniature world"
UNUSED = {
    "init_word": "",
    "anchor_weight": 0.95,
    "anchor_reduction": "seq_mean",
    "max_active_anchors": 4,
    "recode_every": 100,
    "sparse_coder": "nn_omp",
    "template": "object with class",
    "preview_every": 0,
    "preview_prompt": "a photo of {}",
    "save_every": 50,
    "resume": True,
}
"""Inputs of the training node that the demo leaves as they are; a queued graph has to name them all."""
NODES = {"model": ["loader", 0], "clip": ["loader", 1], "vae": ["loader", 2]}


@dataclass(frozen=True)
class Cell:
    """One cell of the ablation."""

    semantic: bool
    spatial: bool

    @property
    def title(self) -> str:
        parts = [name for name, on in (("semantic", self.semantic), ("spatial", self.spatial)) if on]
        return "textual inversion" + (f" + {' + '.join(parts)}" if parts else " alone")

    @property
    def key(self) -> str:
        return f"semantic-{'on' if self.semantic else 'off'}_spatial-{'on' if self.spatial else 'off'}"


CELLS = tuple(Cell(semantic, spatial) for spatial in (False, True) for semantic in (False, True))


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def write_photos(instance: Instance, folder: Path) -> list[str]:
    """Write the photos where Load Image finds them."""
    names = [f"{instance.name}-{i + 1}.png" for i in range(PHOTOS)]
    for name, picture in zip(names, photos(instance)[0], strict=True):
        Image.fromarray(picture).save(folder / name)
    return names


def training_prompt(instance: Instance, names: list[str], concept: str, semantic: bool) -> dict[str, Any]:
    """The graph that learns a concept from its photos."""
    graph = {"loader": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT_NAME)}
    for i, name in enumerate(names):
        graph[f"photo{i}"] = node("LoadImage", image=name)
    graph["photos"] = node("BatchImagesNode", **{f"images.image{i}": [f"photo{i}", 0] for i in range(len(names))})
    graph["train"] = node(
        "CompInvTrainConcept",
        **NODES,
        images=["photos", 0],
        name=concept,
        superclass=instance.noun,
        custom_templates="\n".join(TEMPLATES_WITH_CLASS),
        seed=SEED,
        **UNUSED,
        **INVERSION,
    )
    if semantic:
        graph["anchors"] = node(
            "CompInvLoadAnchors", clip=NODES["clip"], vocabulary="none", extra_words=", ".join(ANCHOR_WORDS)
        )
        graph["train"]["inputs"]["anchors"] = ["anchors", 0]
    graph["save"] = node("CompInvSaveConcept", concept=["train", 0], filename="")
    return graph


def painting_prompt(cell: Cell, instance: Instance, other: str) -> dict[str, Any]:
    """The graph that paints one cell of the ablation."""
    phrases = (f"embedding:{concept_name(instance, cell.semantic)} {instance.noun}", other)
    text = "a photo of a " + " and a ".join(phrases)
    graph = {
        "loader": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT_NAME),
        "negative": node("CLIPTextEncode", clip=NODES["clip"], text=""),
        "positive": node("CLIPTextEncode", clip=NODES["clip"], text=text),
        "latent": node("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=PICTURES),
        "sampler": node(
            "KSampler",
            model=NODES["model"],
            positive=["positive", 0],
            negative=["negative", 0],
            latent_image=["latent", 0],
            seed=SEED,
            denoise=1.0,
            **PAINTING,
        ),
        "decoder": node("VAEDecode", samples=["sampler", 0], vae=NODES["vae"]),
        "save": node("SaveImage", images=["decoder", 0], filename_prefix=cell.key),
    }
    if cell.spatial:
        graph["predictor"] = node("CompInvLoadLayoutPredictor", filename=PREDICTOR)
        graph["layout"] = node(
            "CompInvPredictLayout",
            predictor=["predictor", 0],
            clip=NODES["clip"],
            phrases="\n".join(phrases),
            width=SIDE,
            height=SIDE,
        )
        graph["positive"] = node(
            "CompInvApplyLayoutGuidance",
            model=NODES["model"],
            clip=NODES["clip"],
            text=text,
            layout=["layout", 0],
            **GUIDANCE,
        )
        graph["sampler"]["inputs"] |= {"model": ["positive", 0], "positive": ["positive", 1]}
    return graph


def concept_name(instance: Instance, semantic: bool) -> str:
    return f"{instance.name}-{'semantic' if semantic else 'plain'}"


def fingerprint() -> str:
    """Of everything that words and pictures are made of: the graphs, the photos and the weights."""
    instance = INSTANCES[OWN]
    graphs = [training_prompt(instance, [], "", semantic) for semantic in (False, True)]
    graphs += [painting_prompt(cell, instance, OTHER) for cell in CELLS]
    summary = hashlib.sha256(json.dumps(graphs).encode())
    summary.update(photos(instance)[0].tobytes())
    for file in sorted(WEIGHTS.glob("*.safetensors")):
        summary.update(file.read_bytes())
    return summary.hexdigest()


def set_aside_what_is_out_of_date(folder: Path) -> None:
    """Move what another demo than the present one has made to ``<folder>-previous``, or that with a number."""
    file, present = folder / "made-of.txt", fingerprint()
    # Demos without the file have a host's folder; any other folder is a person's.
    outdated = file.read_text() != present if file.exists() else (folder / "comfyui").exists()
    if outdated:
        names = (f"{folder.name}-previous{number}" for number in ("", *(f"-{n}" for n in range(2, 1000))))
        previous = next(path for path in map(folder.with_name, names) if not path.exists())
        folder.rename(previous)
        print(f"what was made with other settings is in {previous} now", flush=True)
    with replacing(file) as temporary:
        temporary.write_text(present)


def run(server: ComfyServer, title: str, prompt: dict[str, Any]) -> Any:
    """Queue a graph, show its progress, and return its result or stop with the host's sentence."""
    began = time.monotonic()
    result = server.run_with_progress(
        prompt, lambda done, total: print(f"\r{title}: {done}/{total}   ", end="", flush=True)
    )
    print(f"\r{title}: {time.monotonic() - began:.0f} s" + " " * 20, flush=True)
    if not result.ok:
        raise SystemExit(f"{title} failed: {result.error or result.node_errors}")
    return result


def learn_and_paint(server: ComfyServer, folder: Path) -> dict[Cell, np.ndarray]:
    """Pictures (PICTURES, SIDE, SIDE, 3) uint8 of every cell, learned and painted where they are not there yet."""
    instance = INSTANCES[OWN]
    names = write_photos(instance, server.base / "input")
    for semantic in (False, True):
        concept = concept_name(instance, semantic)
        if not (server.base / "models" / "embeddings" / f"{concept}.safetensors").exists():
            run(
                server,
                f"learning {concept} from {len(names)} photos",
                training_prompt(instance, names, concept, semantic),
            )
    cells = {}
    for cell in CELLS:
        files = sorted((folder / "pictures").glob(f"{cell.key}_*.png"))
        if len(files) != PICTURES:
            result = run(server, f"painting: {cell.title}", painting_prompt(cell, instance, OTHER))
            files = []
            for i, picture in enumerate(server.images(result, "save")):
                files.append(folder / "pictures" / f"{cell.key}_{i}.png")
                with replacing(files[-1]) as temporary:
                    Image.fromarray(picture).save(temporary, "PNG")
        cells[cell] = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    return cells


def scores(cells: dict[Cell, np.ndarray]) -> dict[str, dict[str, Any]]:
    """The judge's summary of every cell."""
    table = {}
    for cell, pictures in cells.items():
        rows = judged_rows(torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(255), OWN, OTHER)
        table[cell.key] = {**asdict(cell), **summary(rows)}
    return table


def read_scores(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "scores.json").read_text())


def make(folder: Path) -> None:
    """Do the whole job in ``folder``."""
    set_aside_what_is_out_of_date(folder)
    (folder / "pictures").mkdir(exist_ok=True)
    server = ComfyServer(folder / "comfyui")
    print("assembling the miniature checkpoint", flush=True)
    assemble(server.base / "models" / "checkpoints" / CHECKPOINT_NAME)
    print("starting ComfyUI", flush=True)
    server.start()
    try:
        cells = learn_and_paint(server, folder)
    finally:
        server.stop()
    table = scores(cells)
    facts = {"own": OWN, "other": OTHER, "seed": SEED, "judge": "miniworld judge", "cells": table}
    (folder / "scores.json").write_text(json.dumps(facts, indent=2) + "\n")
    panels = [Panel(cell.title, _caption(table[cell.key]), list(pictures)) for cell, pictures in cells.items()]
    photographs = Panel("the user's photos", "", list(photos(INSTANCES[OWN])[0]))
    title = f"“{OWN} and a {OTHER}”: the same seeds in every panel"
    contact_sheet(title, photographs, panels).save(folder / "ablation.png")
    for cell in CELLS:
        print(f"{cell.title:45} {_caption(table[cell.key])}")
    print(f"pictures: {folder / 'ablation.png'}\nscores:   {folder / 'scores.json'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("demo-output"), help="where pictures and scores go")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make(parser.parse_args().folder.resolve())


def _caption(row: dict[str, Any]) -> str:
    shares = {OTHER: "composed", INSTANCES[OWN].noun: "own", "both": "all_there", "itself": "identified"}
    return "   ".join(f"{name} {row[key]:.0%}" for name, key in shares.items())


if __name__ == "__main__":
    main()
