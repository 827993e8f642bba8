"""Other node packs beside this one in one ComfyUI: ``python -m bench.packs FOLDER``.

FOLDER holds the other packs, each as it would lie in ``custom_nodes/``, with their requirements installed into this
Python's environment. ComfyUI is started three times: with them alone, and with this pack loaded before and after them.
It is an error when a node that was there alone is missing, or one of ours. Then layout guidance runs in graphs with
their nodes, where their pack is there: the picture must differ from that of strength 0. What they are and what came
out is printed as a table. Their code runs as it would in any ComfyUI.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from miniworld.host import put_on_path
from miniworld.laboratory.comfyui_server import PACK_FOLDER, ComfyServer
from miniworld.networks.checkpoint import CHECKPOINT_NAME, assemble

Prompt = dict[str, dict[str, Any]]
SIDE = 128
BLOCKS = "middle and first up"


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def guided(strength: float) -> Prompt:
    """A cat on the left and a ball on the right."""
    boxes = [[{"x": x, "y": 32, "width": 48, "height": 72} for x in (8, 72)]]
    sampling = {"seed": 1, "steps": 6, "cfg": 7.5, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    ends = {"positive": ["guidance", 1], "negative": ["negative", 0], "latent_image": ["latent", 0]}
    return {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT_NAME),
        "layout": node(
            "CompInvLayoutFromBoxes", bboxes={"__value__": boxes}, phrases="a cat\na ball", width=SIDE, height=SIDE
        ),
        "guidance": node(
            "CompInvApplyLayoutGuidance",
            model=["checkpoint", 0],
            clip=["checkpoint", 1],
            text="a cat and a ball",
            layout=["layout", 0],
            strength=strength,
            threshold=0.2,
            max_iterations=5,
            guided_steps=3,
            loss="squared",
            blocks=BLOCKS,
        ),
        "negative": node("CLIPTextEncode", clip=["checkpoint", 1], text=""),
        "latent": node("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=1),
        "sampler": node("KSampler", model=["guidance", 0], **ends, **sampling),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["checkpoint", 2]),
        "images": node("SaveImage", images=["decode", 0], filename_prefix="packs"),
    }


def _text_from(kind: str, **inputs: Any) -> Callable[[Prompt], None]:
    def change(prompt: Prompt) -> None:
        prompt["text"] = node(kind, **inputs)
        prompt["guidance"]["inputs"]["text"] = ["text", 0]

    return change


def _model_through(kind: str, **inputs: Any) -> Callable[[Prompt], None]:
    def change(prompt: Prompt) -> None:
        prompt["patch"] = node(kind, model=["guidance", 0], **inputs)
        prompt["sampler"]["inputs"]["model"] = ["patch", 0]

    return change


def _context(prompt: Prompt) -> None:
    prompt["context"] = node("Context (rgthree)", model=["guidance", 0], positive=["guidance", 1])
    prompt["sampler"]["inputs"].update(model=["context", 1], positive=["context", 4])


def _efficient_sampler(prompt: Prompt) -> None:
    prompt["sampler"]["class_type"] = "KSampler (Efficient)"
    extra = {"preview_method": "none", "vae_decode": "true", "optional_vae": ["checkpoint", 2]}
    prompt["sampler"]["inputs"].update(extra)
    prompt["decode"]["inputs"]["samples"] = ["sampler", 3]


def _was_sampler(prompt: Prompt) -> None:
    prompt["seed"] = node("Seed", seed=1)
    prompt["sampler"]["class_type"] = "KSampler (WAS)"
    prompt["sampler"]["inputs"]["seed"] = ["seed", 0]


def _variations_sampler(prompt: Prompt) -> None:
    inputs = prompt["sampler"]["inputs"]
    inputs["main_seed"] = inputs.pop("seed")
    inputs |= {"variation_strength": 0.2, "variation_seed": 2}
    prompt["sampler"]["class_type"] = "KSamplerVariationsWithNoise+"


def _sliding_contexts(prompt: Prompt) -> None:
    prompt["latent"]["inputs"]["batch_size"] = 6
    prompt["windows"] = node("ADE_StandardUniformContextOptions", context_length=4, context_stride=1, context_overlap=2)
    _model_through("ADE_UseEvolvedSampling", beta_schedule="use existing", context_options=["windows", 0])(prompt)


def _edges(prompt: Prompt) -> None:
    prompt["edges"] = node("CannyEdgePreprocessor", image=["decode", 0], resolution=SIDE)
    prompt["images"]["inputs"]["images"] = ["edges", 0]


def _image_noise(prompt: Prompt) -> None:
    prompt["noise"] = node("IPAdapterNoise", type="fade", strength=0.0, blur=0, image_optional=["decode", 0])
    prompt["images"]["inputs"]["images"] = ["noise", 0]


CASES: dict[str, tuple[str, Callable[[Prompt], None]]] = {
    "Context (rgthree)": ("MODEL and CONDITIONING through its context", _context),
    "Power Lora Loader (rgthree)": ("MODEL through its LoRA loader", _model_through("Power Lora Loader (rgthree)")),
    "KSampler (Efficient)": ("its sampler", _efficient_sampler),
    "CFGZeroStarAndInit": (
        "MODEL through its CFG patch",
        _model_through("CFGZeroStarAndInit", use_zero_init=False, zero_init_steps=0),
    ),
    "StringFunction|pysssss": (
        "prompt from its text node",
        _text_from(
            "StringFunction|pysssss", action="append", tidy_tags="no", text_a="a cat ", text_b="and ", text_c="a ball"
        ),
    ),
    "Text Concatenate": (
        "prompt from its text node",
        _text_from("Text Concatenate", delimiter=" and ", clean_whitespace="true", text_a="a cat", text_b="a ball"),
    ),
    "KSampler (WAS)": ("its sampler", _was_sampler),
    "KSamplerVariationsWithNoise+": ("its sampler", _variations_sampler),
    "ADE_UseEvolvedSampling": (
        "MODEL through its sampling",
        _model_through("ADE_UseEvolvedSampling", beta_schedule="use existing"),
    ),
    "ADE_StandardUniformContextOptions": ("its sliding contexts over six pictures", _sliding_contexts),
    "CannyEdgePreprocessor": ("its edges of the picture", _edges),
    "IPAdapterNoise": ("its noise over the picture", _image_noise),
}
"""By the node that each needs: what is tried, and how the graph changes."""


def serve(work: Path, name: str, ours: bool, packs: Path | None, first: bool = True) -> ComfyServer:
    """Prepare a server; of the two folders of packs its own is loaded first."""
    base = work / name
    (base / "custom_nodes").mkdir(parents=True)
    extra, more = base / "extra.yaml", base / "more"
    server = ComfyServer(base, "--extra-model-paths-config", str(extra))
    link = base / "custom_nodes" / PACK_FOLDER
    others = [] if packs is None else [path for path in sorted(packs.iterdir()) if path.is_dir()]
    more.mkdir()
    for path in others:
        (more if first else base / "custom_nodes").joinpath(path.name).symlink_to(path.resolve())
    if not ours:
        link.unlink()
    elif not first:
        link.rename(more / PACK_FOLDER)
    extra.write_text(json.dumps({"packs": {"base_path": str(base), "custom_nodes": "more"}}))
    return server


def registered(server: ComfyServer) -> dict[str, str]:
    """Every custom node and the module it comes from."""
    modules = {key: info["python_module"] for key, info in server.get("/object_info").items()}
    return {key: module for key, module in modules.items() if module.startswith("custom_nodes.")}


def run_graphs(server: ComfyServer, present: dict[str, str]) -> dict[str, tuple[str, bool]]:
    """Run every graph whose node is there, guided and not; its pack, and whether guidance changed the picture."""
    outcome = {}
    for needed, (_, change) in CASES.items():
        if needed not in present:
            continue
        pictures = []
        for strength in (30.0, 0.0):
            prompt = guided(strength)
            change(prompt)
            result = server.run(prompt)
            if not result.ok or "images" not in result.outputs:
                print(f"{needed}: {result.error} {result.node_errors}", file=sys.stderr)
                break
            pictures.append(server.images(result, "images")[0])
        differs = len(pictures) == 2 and bool((pictures[0] != pictures[1]).any())
        outcome[needed] = present[needed].removeprefix("custom_nodes."), differs
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", type=Path, help="folder of other packs")
    packs = parser.parse_args().packs.resolve()
    put_on_path()
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for name, options in {
            "ours alone": {"ours": True, "packs": None},
            "alone": {"ours": False, "packs": packs},
            "before": {"ours": True, "packs": packs, "first": True},
            "after": {"ours": True, "packs": packs, "first": False},
        }.items():
            server = serve(work, name, **options)
            assemble(server.base / "models" / "checkpoints" / CHECKPOINT_NAME)
            server.start()
            try:
                found[name] = registered(server)
                if name == "after":
                    outcome = run_graphs(server, found[name])
            finally:
                server.stop()
            if "IMPORT FAILED" in server.log:
                failed = [line.rsplit("/", 1)[-1] for line in server.log.splitlines() if "IMPORT FAILED" in line]
                print(f"{name}: could not be imported: {', '.join(failed)}", file=sys.stderr)
    expected = found["ours alone"] | found["alone"]
    for name in ("before", "after"):
        if found[name] != expected:
            sys.exit(f"{name}: these nodes changed: {sorted(set(found[name].items()) ^ set(expected.items()))}")
    counts = Counter(module.removeprefix("custom_nodes.") for module in found["alone"].values())
    print("| pack | nodes | guidance with |\n|---|---|---|")
    for pack, count in sorted(counts.items(), key=lambda item: item[0].lower()):
        tried = [
            f"{CASES[needed][0]} (`{needed}`): {'works' if differs else 'FAILS'}"
            for needed, (owner, differs) in outcome.items()
            if owner == pack
        ]
        print(f"| {pack} | {count} | {'; '.join(tried) or '–'} |")
    if not all(differs for _, differs in outcome.values()):
        sys.exit("Guidance does not work in every graph.")


if __name__ == "__main__":
    main()
