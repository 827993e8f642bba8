"""Folders as `transformers` saves CLIP, DINO and DINOv2, with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from miniworld.host import host_path

SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip


def save_clip(folder: Path, pickled: bool = False) -> Path:
    """A small CLIP with the vocabulary of the real one."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    text = {key: SMALL[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**text, "vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407},
        vision_config=SMALL,
        projection_dim=16,
    )
    side = {"shortest_edge": SMALL["image_size"]}
    crop = {"height": SMALL["image_size"], "width": SMALL["image_size"]}
    _save(folder, CLIPModel(config), CLIPImageProcessor(size=side, crop_size=crop), pickled)
    tokenizer = host_path() / "comfy" / "sd1_tokenizer"
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(tokenizer / name, folder / name)
    return folder


def save_dino(folder: Path) -> Path:
    """A small ViT, as DINO is one."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(1)
    side = {"height": SMALL["image_size"], "width": SMALL["image_size"]}
    return _save(folder, ViTModel(ViTConfig(**SMALL), add_pooling_layer=False), ViTImageProcessor(size=side))


def save_dinov2(folder: Path) -> Path:
    """A small DINOv2."""
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(2)
    config = Dinov2Config(**{key: value for key, value in SMALL.items() if key != "intermediate_size"})
    side = {"shortest_edge": SMALL["image_size"]}
    crop = {"height": SMALL["image_size"], "width": SMALL["image_size"]}
    return _save(folder, Dinov2Model(config), BitImageProcessor(size=side, crop_size=crop))


def _save(folder: Path, network: Any, processor: Any, pickled: bool = False) -> Path:
    network.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    if pickled:
        (folder / "model.safetensors").unlink()
        torch.save(network.state_dict(), folder / "pytorch_model.bin")
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    """Change some values of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
