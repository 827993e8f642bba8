"""Work that runs side by side is as it is alone: a mixed queue, a hundred guided samplings, the host's other nodes."""

from __future__ import annotations

import ctypes
import gc
import random
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from support import checkpoints, host, pictures
from support.attacks import patching
from support.attacks.amounts import ALL
from support.server import ComfyServer
from support.templates.graph import Prompt

COUNT = 20 if ALL else 8
# Those of other kinds of patches; all of them by command.
SOME = (
    "FreeU_V2",
    "LoraModelLoader",
    "RescaleCFG",
    "SelfAttentionGuidance",
    "ModelMergeSimple",
    "ContextWindowsManual",
)


@pytest.fixture
def own_server(tmp_path: Path) -> Any:
    server = ComfyServer(tmp_path)
    server.add_checkpoint(checkpoints.build("tiny"), "tiny.safetensors")
    pictures.fill_input_folder(server.base / "input")
    server.start()
    yield server
    server.stop()


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def mixed(number: int, run: str) -> Prompt:
    """One of the prompts: by its number guided, recorded, both or none, and every fifth with a word learned in it."""
    text, model, positive = "a cat and a ball", ["checkpoint", 0], ["encoded", 0]
    prompt = {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name="tiny.safetensors"),
        "latent": node("EmptyLatentImage", width=64, height=64 + 32 * (number % 2), batch_size=1 + number % 3 // 2),
        "encoded": node("CLIPTextEncode", clip=["checkpoint", 1], text=text),
    }
    if number % 5 == 4:
        prompt["photo"] = node("LoadImage", image="my-cat-1.png")
        prompt["learned"] = node(
            "CompInvTrainConcept", model=model, clip=["checkpoint", 1], vae=["checkpoint", 2], images=["photo", 0],
            name=f"{run}-{number}", superclass="cat", init_word="", num_vectors=1, steps=2, batch_size=1,
            learning_rate=0.01, anchor_weight=0.95, max_active_anchors=4, recode_every=100, sparse_coder="nn_omp",
            anchor_reduction="seq_mean", template="object", preview_every=0, preview_prompt="a photo of {}",
            save_every=100, resume=True, seed=number, preset="paper",
        )  # fmt: skip
        prompt["words"] = node("StringConcatenate", string_a=["learned", 1], string_b="cat and a ball", delimiter=" ")
        prompt["encoded"]["inputs"]["text"] = ["words", 0]
    elif number % 2:
        boxes = [[{"x": x, "y": 0, "width": 30, "height": 60} for x in (0, 32)]]
        prompt["layout"] = node(
            "CompInvLayoutFromBoxes", bboxes={"__value__": boxes}, phrases="a cat\na ball", width=64, height=64
        )
        prompt["guide"] = node(
            "CompInvApplyLayoutGuidance", model=model, clip=["checkpoint", 1], layout=["layout", 0], text=text,
            strength=300.0 + number, threshold=0.1, max_iterations=1, guided_steps=2, loss="squared",
            blocks="middle and first up",
        )  # fmt: skip
        model, positive = ["guide", 0], ["guide", 1]
    if number % 4 > 1 and number % 5 != 4:
        prompt["record"] = node(
            "CompInvRecordAttention", model=model, clip=["checkpoint", 1], text=text, phrases="a cat\na ball"
        )
        prompt["show"] = node("CompInvShowAttention", attention=["record", 1], samples=["sampled", 0])
        prompt["maps"] = node("SaveImage", images=["show", 0], filename_prefix=f"{run}/{number}")
        model = ["record", 0]
    prompt["sampled"] = node(
        "KSampler", model=model, positive=positive, negative=positive, latent_image=["latent", 0], seed=number, steps=2,
        cfg=3.0, sampler_name=("euler", "dpmpp_2m")[number % 2], scheduler="normal", denoise=1.0,
    )  # fmt: skip
    prompt["saved"] = node("SaveLatent", samples=["sampled", 0], filename_prefix=f"{run}/{number}")
    return prompt


def kept(server: ComfyServer, run: str) -> dict[str, Any]:
    """The latents and maps that a run wrote."""
    folder = server.base / "output" / run
    latents = {path.name: load_file(path)["latent_tensor"] for path in folder.glob("*.latent")}
    words = (server.base / "models" / "embeddings").glob(f"{run}-*")
    vectors = {path.stem.removeprefix(run): next(iter(load_file(path).values())) for path in words}
    return {**latents, **vectors, **{path.name: (path.stat().st_size,) for path in folder.glob("*.png")}}


def test_a_queue_of_mixed_prompts_gives_what_each_gives_alone(own_server: ComfyServer) -> None:
    for number in range(COUNT):
        own_server.post("/free", {"unload_models": True, "free_memory": True})
        result = own_server.run(mixed(number, "alone"))
        assert result.ok, result
    order = list(range(COUNT))
    random.Random(0).shuffle(order)
    queued = [own_server.queue(mixed(number, "queued")) for number in order]
    for result in map(own_server.wait, queued):
        assert result.ok, result
    alone, together = kept(own_server, "alone"), kept(own_server, "queued")
    assert alone.keys() == together.keys() and len(alone) > COUNT
    differing = [
        name
        for name, value in alone.items()
        if isinstance(value, torch.Tensor) and not torch.equal(value, together[name])
    ]
    assert not differing


def resident_bytes() -> int:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.usefixtures("one_thread")
def test_memory_after_a_hundred_guided_samplings_is_that_after_five() -> None:
    from support.sampling import noise_like, sample

    model, after = host.load("tiny")[0], {}
    for number in range(1, 101):
        sample(*patching.guided(model, 300.0), noise=noise_like(seed=number), steps=2, cfg=3.0)
        if number in (5, 100):
            after[number] = resident_bytes()
    assert after[100] < 1.02 * after[5], after


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", [*SOME, *([] if not ALL else ["all"])])
@pytest.mark.filterwarnings("ignore")
def test_nodes_of_the_host_that_patch_a_model_go_with_guidance(name: str) -> None:
    nodes = patching.patching_nodes()
    wanted = nodes.keys() - patching.LEFT_OUT if name == "all" else {name}
    outcomes = [patching.outcome(each, nodes[each]) for each in sorted(wanted)]
    assert not [each for each in outcomes if each.before or each.after]
    assert name == "all" or not outcomes[0].refused, outcomes


def test_the_page_names_every_such_node() -> None:
    text = patching.PAGE.read_text()
    missing = [name for name in patching.patching_nodes() if name not in text]
    assert not missing, f"python tests/support/attacks/patching.py writes {patching.PAGE.name} anew"
