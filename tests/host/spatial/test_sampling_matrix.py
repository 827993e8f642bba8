"""Layout guidance through the stock sampler node, over samplers, batches, sizes and kinds of prompt.

Each case runs three samplings in one prompt, from the same noise: without our node, guided, and with strength 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.server import ComfyServer
from support.templates.graph import Prompt

LEFT = {"x": 0.05, "y": 0.2, "width": 0.4, "height": 0.7}
RIGHT = {"x": 0.55, "y": 0.1, "width": 0.4, "height": 0.6}
FILLER = "sitting on a very long wooden bench in the warm light of a late summer evening, "
LONG_PROMPT = f"a cat {FILLER * 6}and a red ball"


@dataclass(frozen=True)
class Case:
    """One setting of the sampler, the picture and the prompt."""

    sampler: str = "euler"
    batch: int = 1
    width: int = 128
    height: int = 128
    text: str = "a cat and a ball"
    phrases: str = "a cat\na ball"
    cfg: float = 4.0
    scheduler: str = "normal"


SAMPLERS = (
    "euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_sde", "dpm_2_ancestral", "ddim", "uni_pc", "lcm",
)  # fmt: skip
CASES = {
    **{f"{name}-1": Case(sampler=name) for name in SAMPLERS},
    **{f"{name}-3-wide": Case(sampler=name, batch=3, width=192) for name in SAMPLERS},
    "batch-3": Case(batch=3),
    "wide": Case(width=192),
    "tall": Case(height=192),
    "karras": Case(sampler="dpmpp_2m", scheduler="karras"),
    "no-negative-prompt": Case(cfg=1.0),
    "long-prompt": Case(text=LONG_PROMPT, phrases="a cat\na red ball"),
    "weighted": Case(text="a (cat:1.4) and (a ball:0.7)", phrases="cat\na ball"),
    "two-embeddings": Case(
        text="embedding:matrix-one cat and embedding:matrix-two ball",
        phrases="embedding:matrix-one cat\nembedding:matrix-two ball",
    ),
}


def boxes(case: Case) -> list[list[dict]]:
    """The two boxes in pixels of the picture, as the host's BOUNDING_BOX."""
    scale = {"x": case.width, "width": case.width, "y": case.height, "height": case.height}
    return [[{key: round(value * scale[key]) for key, value in box.items()} for box in (LEFT, RIGHT)]]


def prompt_for(case: Case, name: str) -> Prompt:
    """A prompt that saves the three latents under `output/matrix/NAME-…`."""
    sampling = {
        "seed": 7,
        "steps": 3,
        "cfg": case.cfg,
        "sampler_name": case.sampler,
        "scheduler": case.scheduler,
        "denoise": 1.0,
        "negative": ["negative", 0],
        "latent_image": ["latent", 0],
    }
    guidance = {
        "model": ["checkpoint", 0],
        "clip": ["checkpoint", 1],
        "text": case.text,
        "layout": ["layout", 0],
        "strength": 30.0,
        "threshold": 0.2,
        "max_iterations": 1,
        "guided_steps": 2,
        "loss": "squared",
        "blocks": "middle and first up",
    }
    prompt: Prompt = {
        "checkpoint": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny.safetensors"}},
        "negative": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["checkpoint", 1], "text": "blurry"}},
        "latent": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": case.width, "height": case.height, "batch_size": case.batch},
        },
        "layout": {
            "class_type": "CompInvLayoutFromBoxes",
            "inputs": {
                "bboxes": {"__value__": boxes(case)},
                "phrases": case.phrases,
                "width": case.width,
                "height": case.height,
            },
        },
        "plain": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["checkpoint", 1], "text": case.text}},
        "guided": {"class_type": "CompInvApplyLayoutGuidance", "inputs": guidance},
        "zero": {"class_type": "CompInvApplyLayoutGuidance", "inputs": {**guidance, "strength": 0.0}},
    }
    for kind, model, positive in (
        ("plain", ["checkpoint", 0], ["plain", 0]),
        ("guided", ["guided", 0], ["guided", 1]),
        ("zero", ["zero", 0], ["zero", 1]),
    ):
        prompt[f"sample-{kind}"] = {
            "class_type": "KSampler",
            "inputs": {**sampling, "model": model, "positive": positive},
        }
        prompt[f"save-{kind}"] = {
            "class_type": "SaveLatent",
            "inputs": {"samples": [f"sample-{kind}", 0], "filename_prefix": f"matrix/{name}-{kind}"},
        }
    return prompt


@pytest.fixture(scope="module")
def embeddings(server: ComfyServer) -> None:
    """Two learned words, of one and of two vectors."""
    generator = torch.Generator().manual_seed(3)
    for name, vectors in (("matrix-one", 1), ("matrix-two", 2)):
        values = torch.randn(vectors, 768, generator=generator) * 0.0137
        save_file({name: values}, str(server.base / "models" / "embeddings" / f"{name}.safetensors"))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("embeddings")
def test_guidance_changes_the_picture_and_strength_zero_changes_no_bit(server: ComfyServer, name: str) -> None:
    case = CASES[name]
    result = server.run(prompt_for(case, name))
    assert result.ok, result

    latents = {
        kind: load_file(server.base / "output" / "matrix" / f"{name}-{kind}_00001_.latent")["latent_tensor"]
        for kind in ("plain", "guided", "zero")
    }

    assert latents["plain"].shape == (case.batch, 4, case.height // 8, case.width // 8)
    assert torch.equal(latents["zero"], latents["plain"])
    assert torch.isfinite(latents["guided"]).all()
    change = (latents["guided"] - latents["plain"]).flatten(1).abs().amax(1)
    assert (change > 1e-3).all(), f"pictures that guidance did not reach: {change}"
