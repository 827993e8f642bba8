"""Custom Diffusion, DreamBooth and joint training on the real server, with the host's nodes before and after them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from support.server import ComfyServer

Prompt = dict[str, dict[str, Any]]

COMMON = {
    "name": "tuned-cat", "superclass": "cat", "init_word": "", "num_vectors": 1, "steps": 2, "batch_size": 2,
    "learning_rate": 0.001, "anchor_weight": 0.95, "max_active_anchors": 4, "recode_every": 1,
    "sparse_coder": "nn_omp", "anchor_reduction": "seq_mean", "template": "object", "class_prompt": "",
    "num_class_images": 1, "prior_weight": 1.0, "preview_every": 0, "preview_prompt": "a photo of {}",
    "save_every": 1, "resume": True, "seed": 0,
}  # fmt: skip


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def picture(model: list, source: list, text: str | list) -> Prompt:
    """Nodes that paint one picture with a model; `source` is the loader of its text encoder and autoencoder."""
    return {
        "positive": node("CLIPTextEncode", clip=[source[0], 1], text=text),
        "negative": node("CLIPTextEncode", clip=[source[0], 1], text=""),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "sampler": node(
            "KSampler", model=model, positive=["positive", 0], negative=["negative", 0], latent_image=["latent", 0],
            seed=1, steps=2, cfg=5.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=[source[0], 2]),
        "image": node("SaveImage", images=["decode", 0], filename_prefix="tuned"),
    }  # fmt: skip


def tuning_prompt(kind: str, **settings: Any) -> Prompt:
    """Flat photos and class pictures, two anchors, two steps, and a picture by the trained model."""
    connected = {
        "model": ["load", 0], "clip": ["load", 1], "vae": ["load", 2], "images": ["photos", 0],
        "anchors": ["anchors", 0], "class_images": ["others", 0],
    }  # fmt: skip
    return {
        "load": node("CheckpointLoaderSimple", ckpt_name="tiny.safetensors"),
        "photos": node("EmptyImage", width=64, height=64, batch_size=2, color=0x336699),
        "others": node("EmptyImage", width=64, height=64, batch_size=2, color=0x993366),
        "anchors": node("CompInvLoadAnchors", clip=["load", 1], vocabulary="none", extra_words="dog, teddy bear"),
        "train": node(kind, **{**COMMON, **connected, **settings}),
        "loss": node("LossGraphNode", loss=["train", 2], filename_prefix="loss"),
        **picture(["train", 0], ["load"], ["train", 4]),
    }


def images(server: ComfyServer, prompt: Prompt) -> list[np.ndarray]:
    result = server.run(prompt)
    assert result.ok, result
    return server.images(result, "image")


def test_two_concepts_by_custom_diffusion(server: ComfyServer) -> None:
    prompt = tuning_prompt("CompInvTrainCustomDiffusion", more_concepts=["second", 0])
    # The second concept's class pictures are made, since only the first's can be connected.
    prompt["second"] = node(
        "CompInvConceptImages", images=["others", 0], name="tuned-dog", superclass="dog", init_word="", num_vectors=2
    )
    prompt["copies"] = node("CompInvSaveConcept", concept=["train", 1], filename="")
    prompt["lora file"] = node("SaveLoRA", lora=["train", 3], prefix="loras/tuned")
    prompt["words"] = node("PreviewAny", source=["train", 4])
    result = server.run(prompt)
    assert result.ok, result
    words = "embedding:tuned-cat cat and embedding:tuned-dog dog"
    assert result.outputs["words"]["text"] == [words]
    for name, vectors in (("tuned-cat", 1), ("tuned-dog", 2)):
        with safe_open(server.base / "models" / "embeddings" / f"{name}.safetensors", "pt") as file:
            assert file.get_tensor(f"<{name}>").shape == (vectors, 768)
            assert file.metadata()["method"] == "Custom Diffusion with semantic inversion"
    run = server.base / "output" / "compinv" / "runs" / "tuned-cat+tuned-dog.custom-diffusion"
    assert (run / "state.safetensors").is_file() and len(list(run.glob("class_images/*/*.png"))) == 1
    own = server.base / "models" / "loras" / "tuned-cat+tuned-dog.safetensors"
    (theirs,) = (server.base / "output" / "loras").glob("tuned*.safetensors")
    with safe_open(own, "np") as ours, safe_open(theirs, "np") as stock:
        keys = list(ours.keys())
        assert keys == list(stock.keys()) and all(key.endswith(("to_k.diff", "to_v.diff")) for key in keys)
        assert all(np.array_equal(ours.get_tensor(key), stock.get_tensor(key)) for key in keys)

    reloaded = {
        "load": prompt["load"],
        "lora": node("LoraLoaderModelOnly", model=["load", 0], lora_name=own.name, strength_model=1.0),
        **picture(["lora", 0], ["load"], words),
    }
    assert np.array_equal(images(server, reloaded)[0], server.images(result, "image")[0])


def test_dreambooth_survives_the_hosts_checkpoint(server: ComfyServer) -> None:
    prompt = tuning_prompt("CompInvTrainDreamBooth", name="booth-cat", lora_rank=8)
    prompt["file"] = node(
        "CheckpointSave", model=["train", 0], clip=["load", 1], vae=["load", 2], filename_prefix="checkpoints/booth"
    )
    prompt["lora file"] = node("SaveLoRA", lora=["train", 3], prefix="loras/booth")
    trained = images(server, prompt)[0]
    (checkpoint,) = (server.base / "output" / "checkpoints").glob("booth*.safetensors")
    server.add_checkpoint(checkpoint, "booth.safetensors")
    loader = {"load": node("CheckpointLoaderSimple", ckpt_name="booth.safetensors")}
    again = images(server, {**loader, **picture(["load", 0], ["load"], "embedding:booth-cat cat")})[0]
    assert np.array_equal(again, trained)
    untrained = {"load": prompt["load"], **picture(["load", 0], ["load"], "embedding:booth-cat cat")}
    assert not np.array_equal(images(server, untrained)[0], trained)


def test_dreambooth_of_low_rank_comes_back_by_the_stock_nodes(server: ComfyServer) -> None:
    prompt = tuning_prompt("CompInvTrainDreamBooth", name="thin-cat", train_rank=4)
    prompt["lora file"] = node("SaveLoRA", lora=["train", 3], prefix="loras/thin")
    trained = images(server, prompt)[0]
    (file,) = (server.base / "output" / "loras").glob("thin*.safetensors")
    with safe_open(file, "np") as lora:
        keys = list(lora.keys())
        assert keys and all(key.startswith("lora_unet_") for key in keys)
    loras = server.base / "models" / "loras"
    loras.mkdir(exist_ok=True)
    file.rename(loras / "thin.safetensors")
    reloaded = {
        "load": prompt["load"],
        "lora": node("LoraLoaderModelOnly", model=["load", 0], lora_name="thin.safetensors", strength_model=1.0),
        **picture(["lora", 0], ["load"], "embedding:thin-cat cat"),
    }
    assert np.array_equal(images(server, reloaded)[0], trained)


BAD_INPUTS = [
    ({"model": ["wrong", 0]}, {"wrong": node("CheckpointLoaderSimple", ckpt_name="refiner.safetensors")},
     "only Stable Diffusion 1"),
    ({"class_images": ["wrong", 0]}, {"wrong": node("EmptyImage", width=72, height=64, batch_size=2, color=0)},
     "class_images are 72x64"),
    ({"num_class_images": 3}, {}, "class_images holds 2 pictures"),
    ({"more_concepts": ["wrong", 0]},
     {"wrong": node("CompInvConceptImages", images=["others", 0], name="never", superclass="dog", init_word="",
                    num_vectors=1)},
     'Two concepts have the name "never"'),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["CompInvTrainCustomDiffusion", "CompInvTrainDreamBooth"])
@pytest.mark.parametrize(("settings", "more", "sentence"), BAD_INPUTS)
def test_bad_input_gets_a_sentence(
    server: ComfyServer, kind: str, settings: dict[str, Any], more: Prompt, sentence: str
) -> None:
    result = server.run({**tuning_prompt(kind, **{"name": "never", **settings}), **more})
    assert sentence in result.error and result.error.count(". ") == 0 and result.error_type.endswith("UserError")
    assert result.error_node == kind
