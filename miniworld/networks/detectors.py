"""Two real detectors of the miniature world's nouns: ultralytics' smallest YOLO, and a small DETR of transformers.

Both are written as their libraries write them, so that the pack loads them as it loads anyone's.
"""

from __future__ import annotations

import os
import tempfile
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from compinv_core.detectors.yolo import quiet_ultralytics

from ..world.placing import SIDE
from .judge import NOUN_NAMES

YOLO_YAML = "yolo11n.yaml"
# Weights of the three parts of ultralytics' loss, its own defaults.
YOLO_LOSS = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5)
_SETTINGS = Path(tempfile.gettempdir()) / "compinv-ultralytics"


def yolo_network() -> nn.Module:
    """A random YOLO, whose counters of batches are fractions, as a moving average needs them."""
    with quiet_ultralytics(_SETTINGS):
        from ultralytics.nn.tasks import DetectionModel

        network = DetectionModel(YOLO_YAML, nc=len(NOUN_NAMES), verbose=False)
    network.names = dict(enumerate(NOUN_NAMES))
    network.args = YOLO_LOSS
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.num_batches_tracked = torch.tensor(0.0)
    return network


def yolo_loss(network: nn.Module, pictures: Tensor, rows: Tensor) -> Tensor:
    """ultralytics' own loss; pictures (B, 3, SIDE, SIDE) in [0, 1], rows (B, 3, 5) as `training.detectors.truth`."""
    picture, which = (rows[..., 0] >= 0).nonzero(as_tuple=True)
    there = rows[picture, which]
    batch = {"img": pictures, "batch_idx": picture, "cls": there[:, :1], "bboxes": _centred(there[:, 1:])}
    total, _ = network.loss(batch)
    return total.sum() / len(pictures)


def save_yolo(weights: dict[str, Tensor], path: Path) -> None:
    """Write the file as ultralytics' trainer does: the whole network, pickled, in half precision."""
    network = yolo_network()
    network.load_state_dict(weights)
    network = deepcopy(network).half().eval().requires_grad_(False)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.num_batches_tracked = torch.tensor(0)
    network.args = {"imgsz": SIDE, "task": "detect"}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    torch.save({"epoch": -1, "ema": None, "model": network, "train_args": {"imgsz": SIDE, "task": "detect"}}, temporary)
    os.replace(temporary, path)


def detr_network() -> nn.Module:
    """A random DETR of 1.2 million parameters, whose batch normalisations learn.

    `transformers` freezes the backbone, which is meant for one that others have trained.
    """
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=32, hidden_sizes=[48, 96, 160], depths=[1, 1, 1], layer_type="basic", out_features=["stage3"]
    )
    config = DetrConfig(
        use_timm_backbone=False,
        backbone_config=backbone,
        d_model=128,
        num_queries=8,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=256,
        decoder_ffn_dim=256,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        dropout=0.0,
        auxiliary_loss=True,
        id2label=dict(enumerate(NOUN_NAMES)),
        label2id={noun: index for index, noun in enumerate(NOUN_NAMES)},
    )
    network = DetrForObjectDetection(config)
    _unfreeze(network)
    for name, weight in network.named_parameters():
        if "backbone" in name and weight.ndim == 4:
            nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
    return network.requires_grad_(True)


def detr_loss(network: nn.Module, pictures: Tensor, rows: Tensor) -> Tensor:
    """transformers' own loss (Hungarian matching), on the same input as `yolo_loss`."""
    labels = []
    for picture in rows:
        there = picture[picture[:, 0] >= 0]
        labels.append({"class_labels": there[:, 0].long(), "boxes": _centred(there[:, 1:])})
    mask = torch.ones(len(pictures), SIDE, SIDE, dtype=torch.long)
    return network(pixel_values=_normalised(pictures), pixel_mask=mask, labels=labels).loss


def save_detr(weights: dict[str, Tensor], folder: Path) -> None:
    """Write the folder as transformers' ``save_pretrained`` does, in half precision."""
    from transformers import DetrForObjectDetection, DetrImageProcessor

    trained = detr_network()
    trained.load_state_dict(weights)
    # A frozen normalisation has the same tensors, so these are the same numbers.
    network = DetrForObjectDetection(trained.config)
    network.load_state_dict(trained.state_dict())
    network.half().save_pretrained(folder)
    DetrImageProcessor(size={"shortest_edge": SIDE, "longest_edge": 2 * SIDE}).save_pretrained(folder)


def _unfreeze(network: nn.Module) -> None:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == "DetrFrozenBatchNorm2d":
                normalisation = nn.BatchNorm2d(len(child.weight))
                normalisation.num_batches_tracked = torch.tensor(0.0)
                setattr(module, name, normalisation)


def _normalised(pictures: Tensor) -> Tensor:
    from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return (pictures - mean) / std


def _centred(boxes: Tensor) -> Tensor:
    """Corners (N, 4) to centre and size."""
    corner, opposite = boxes.split(2, dim=1)
    return torch.cat([(corner + opposite) / 2, opposite - corner], dim=1)
