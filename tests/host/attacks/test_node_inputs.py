"""Every node with odd inputs: it gives its outputs, or a sentence."""

from __future__ import annotations

import functools
import random
from typing import Any

import pytest
import torch

from support import host
from support.attacks.amounts import seeds
from support.attacks.inputs import odd
from support.attacks.watch import answer

pytestmark = pytest.mark.usefixtures("one_thread")
# Few steps and small pictures; the rest is as the nodes have it.
SOUND = {
    "superclass": "cat", "name": "attacked", "steps": 1, "batch_size": 1, "num_class_images": 1, "epochs": 1,
    "pairs": 2, "images_per_pair": 1, "width": 64, "height": 64, "phrases": "a cat\na ball", "text": "a cat and a ball",
    "prompt": "a cat and a ball", "concepts": "a cat\na ball", "vocabulary": "none", "extra_words": "cat, ball, boat",
    "model": "miniature world", "filename": "attacked", "embedding": "owl.safetensors", "clip_model": "clip",
    "composition_every": 0, "rank": 2,
}  # fmt: skip
FEW, MANY = 8, 100


@functools.cache
def nodes() -> dict[str, Any]:
    return {node.define_schema().node_id: node for node in host.load_pack().nodes.NODES}


@functools.cache
def sockets() -> dict[str, Any]:
    """What links carry, as the pack's own nodes and the host's loader make it."""
    from safetensors.torch import save_file

    from support.models.encoder_folders import save_clip

    base = host.start()
    save_file({"emb_params": torch.rand(2, 768) * 0.02}, base / "models" / "embeddings" / "owl.safetensors")
    save_clip(base / "models" / "compinv" / "encoders" / "clip")
    with torch.inference_mode():
        model, clip, vae = host.load_anew()
        found = {
            "MODEL": model, "CLIP": clip, "VAE": vae, "IMAGE": torch.rand(2, 64, 64, 3), "MASK": torch.ones(2, 64, 64),
            "BOUNDING_BOX": [[{"x": x, "y": 0, "width": 30, "height": 60} for x in (0, 32)]],
            "LATENT": {"samples": torch.zeros(1, 4, 8, 8)},
        }  # fmt: skip
        for name, socket, output in (
            ("CompInvLoadAnchors", "COMPINV_ANCHORS", 0),
            ("CompInvLayoutFromBoxes", "COMPINV_LAYOUT", 0),
            ("CompInvLoadLayoutPredictor", "COMPINV_LAYOUT_PREDICTOR", 0),
            ("CompInvLoadDetector", "COMPINV_DETECTOR", 0),
            ("CompInvRecordAttention", "COMPINV_ATTENTION", 1),
            ("CompInvAdjustEmbedding", "COMPINV_CONCEPT", 0),
            ("CompInvConceptImages", "COMPINV_CONCEPT_IMAGES", 0),
            ("CompInvCollectLayouts", "COMPINV_LAYOUT_DATASET", 0),
        ):
            found[socket] = nodes()[name].execute(**sound(name, found)).result[output]
    return found


def sound(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Inputs of a node that it takes without a complaint; optional sockets are not connected."""
    schema = nodes()[name].define_schema()
    inputs: dict[str, Any] = {}
    for declared in schema.inputs:
        if declared.io_type in given:
            if not declared.optional:
                inputs[declared.id] = given[declared.io_type]
        elif declared.id in SOUND:
            inputs[declared.id] = SOUND[declared.id]
        elif hasattr(declared, "default") and declared.default is not None:
            inputs[declared.id] = declared.default
        elif not declared.optional and declared.io_type == "COMBO":
            inputs[declared.id] = declared.options[0]
    own = {
        "CompInvAdjustEmbedding": {"filename": "attacked-adjusted"},
        "CompInvConceptImages": {"name": "other"},
        "CompInvLoadLayoutPredictor": {"filename": "side-by-side"},
    }
    inputs |= own.get(name, {})
    return {key: [value] for key, value in inputs.items()} if schema.is_input_list else inputs


def only_sound(declared: Any) -> bool:
    """Tell whether nothing but a sound value, made by a node of its own, can come over a link."""
    return declared.io_type.startswith("COMPINV_") or declared.io_type in ("MODEL", "CLIP_VISION")


def call(name: str, inputs: dict[str, Any]) -> str:
    from comfy_api.latest import io

    def run() -> None:
        with torch.inference_mode():
            hidden = io.HiddenHolder.from_dict({io.Hidden.prompt: {}, io.Hidden.unique_id: "1"})
            node = type(name, (nodes()[name],), {"hidden": hidden})
            # The host asks with the values of widgets alone.
            known = {declared.id for declared in node.define_schema().inputs if hasattr(declared, "default")}
            if "fingerprint_inputs" in vars(nodes()[name]):
                node.fingerprint_inputs(**{key: value for key, value in inputs.items() if key in known})
            node.execute(**inputs)

    return answer(run)


NAMES = (
    "CompInvLoadAnchors", "CompInvTrainConcept", "CompInvTrainCustomDiffusion", "CompInvTrainDreamBooth",
    "CompInvConceptImages", "CompInvSaveConcept", "CompInvInspectEmbedding", "CompInvAdjustEmbedding",
    "CompInvLoadDetector", "CompInvDetect", "CompInvLayoutFromBoxes", "CompInvCollectLayouts",
    "CompInvTrainLayoutPredictor", "CompInvSaveLayoutPredictor", "CompInvLoadLayoutPredictor", "CompInvPredictLayout",
    "CompInvApplyLayoutGuidance", "CompInvRecordAttention", "CompInvShowAttention", "CompInvEvaluateImages",
    "CompInvLayoutFromMasks", "CompInvLayoutFromModel",
)  # fmt: skip


def test_no_node_is_left_out() -> None:
    assert set(NAMES) == set(nodes())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_odd_inputs_get_outputs_or_a_sentence(name: str) -> None:
    given = dict(sockets())
    base = sound(name, given)
    schema, failures = nodes()[name].define_schema(), []
    for seed in seeds(FEW, MANY):
        rng = random.Random(f"{name} {seed}")
        inputs = dict(base)
        for _ in range(rng.choice((1, 1, 2, 3))):
            declared = rng.choice([each for each in schema.inputs if not only_sound(each)])
            value = given[declared.io_type] if rng.random() < 0.3 and declared.io_type in given else odd(declared, rng)
            inputs[declared.id] = [value] if schema.is_input_list else value
        try:
            call(name, inputs)
        except AssertionError as error:
            odd_ones = {key: value for key, value in inputs.items() if value is not base.get(key)}
            failures.append(f"seed {seed}, {odd_ones!r:.400}: {error}")
    assert not failures, "\n".join(failures)
