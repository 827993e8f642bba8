"""Detector files as their libraries write them, with random weights that find many things."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import locations  # noqa: F401 (puts the repository on the path)

from compinv_core.detectors.yolo import quiet_ultralytics  # isort: skip

TASKS = {"DetectionModel": "detect", "SegmentationModel": "segment", "PoseModel": "pose"}
SMALL_DETR = {
    "d_model": 32,
    "num_queries": 6,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}
YOLO_EXTRAS = {"best_fitness": np.float64(0.5), "folder": Path("runs"), "settings": SimpleNamespace(lr=0.01)}
"""Further entries of a YOLO file, of the kinds that trainers leave in it."""


def yolo_network(yaml: str, settings: Path, kind: str = "DetectionModel", names: tuple[str, ...] = ()) -> nn.Module:
    """A YOLO of ultralytics with random weights, normalised so that its scores and boxes vary."""
    with quiet_ultralytics(settings):
        from ultralytics.nn import tasks

        torch.manual_seed(0)
        network = getattr(tasks, kind)(yaml, nc=len(names) or 3, verbose=False)
    network.names = dict(enumerate(names or ("cat", "dog", "boat")))
    network.args = {"imgsz": 128, "task": TASKS[kind]}
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    network.train()
    with torch.no_grad():
        network(torch.rand(4, 3, 128, 128))
        for name, parameter in network.model[-1].named_parameters():
            # The last convolutions of boxes and classes: sound boxes, and scores on both sides of a half.
            if re.fullmatch(r"(one2one_)?cv[23]\.\d\.2\.(weight|bias)", name):
                if parameter.ndim > 1:
                    parameter.mul_(0.1)
                elif "cv3" in name:
                    parameter.zero_()
    return network.eval()


def save_yolo(path: Path, network: Any, **entries: Any) -> Path:
    """Write what ultralytics' trainer writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = getattr(network, "args", {"imgsz": 128})
    content = {"epoch": -1, "ema": None, "model": network, "train_args": settings, **entries}
    torch.save(content, path)
    return path


def save_detr(folder: Path, id2label: dict[int, str] | None = None, seed: int = 0) -> Path:
    """Write a DETR with a small ResNet of transformers, as ``save_pretrained`` does."""
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig

    torch.manual_seed(seed)
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    labels = id2label or {0: "cat", 1: "dog", 2: "boat"}
    config = DetrConfig(use_timm_backbone=False, backbone_config=backbone, id2label=labels, **SMALL_DETR)
    network = DetrForObjectDetection(config)
    with torch.no_grad():
        # The last layers begin near zero, so that all queries would answer alike.
        for layer in (network.class_labels_classifier, *network.bbox_predictor.layers):
            layer.weight.normal_(0, 0.3)
        network.model.query_position_embeddings.weight.normal_(0, 3)
        for name, parameter in network.named_parameters():
            if "encoder_attn" in name and name.endswith(("q_proj.weight", "k_proj.weight")):
                parameter.mul_(10)
    network.save_pretrained(folder)
    DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 128}).save_pretrained(folder)
    return folder
