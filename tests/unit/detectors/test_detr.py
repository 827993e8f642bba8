"""DETR folders: the same boxes as transformers' own, a ResNet of timm's names without timm, and broken folders."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from compinv_core.basics.errors import UserError
from compinv_core.detectors.detr import load_detr
from support.models import detector_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detector_files.save_detr(tmp_path_factory.mktemp("detr") / "small")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to be spoilt."""
    return Path(shutil.copytree(folder, tmp_path / "small"))


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_boxes_are_those_of_transformers(folder: Path) -> None:
    from transformers import DetrForObjectDetection, DetrImageProcessor

    images = torch.rand(6, 48, 80, 3, generator=torch.Generator().manual_seed(0))
    network = DetrForObjectDetection.from_pretrained(folder).eval()
    processor = DetrImageProcessor.from_pretrained(folder)
    inputs = processor(images=list(images.movedim(-1, 1)), do_rescale=False, return_tensors="pt")
    with torch.no_grad():
        output = network(**inputs)
    threshold = float(output.logits.softmax(-1)[..., :-1].amax(-1).median()) + 1e-4
    expected = processor.post_process_object_detection(output, threshold, target_sizes=[(1, 1)] * len(images))
    assert 0 < sum(len(rows["scores"]) for rows in expected) < 6 * len(images)

    found = load_detr(folder, "mine", threshold).detect(images)

    for things, rows in zip(found, expected, strict=True):
        order = rows["scores"].argsort(descending=True)
        assert [thing.label for thing in things] == [network.config.id2label[int(i)] for i in rows["labels"][order]]
        assert [thing.score for thing in things] == pytest.approx(rows["scores"][order].tolist(), abs=1e-5)
        for thing, box in zip(things, rows["boxes"][order].clamp(0, 1).tolist(), strict=True):
            assert thing.box == pytest.approx(box, abs=1e-5)


def test_gaps_in_the_numbering_are_no_labels(tmp_path: Path) -> None:
    gappy = detector_files.save_detr(tmp_path / "gappy", {0: "N/A", 1: "cat", 2: "N/A", 3: "N/A"})
    detector = load_detr(gappy, "gappy", 0.0)
    assert detector.labels == ("cat",)
    images = torch.rand(2, 32, 32, 3)
    assert {thing.label for things in detector.detect(images) for thing in things} <= {"cat"}


def test_half_precision_is_taken(folder: Path, copy: Path) -> None:
    weights = {key: tensor.half() for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    change_config(copy, dtype="float16", torch_dtype="float16")
    network = load_detr(copy, "half", 0.5).network
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


@pytest.mark.parametrize(("name", "forms"), [("resnet18", "implicit"), ("resnet50", "old"), ("resnet50", "new")])
def test_a_resnet_with_timms_names_gives_torchvisions_numbers(name: str, forms: str, tmp_path: Path) -> None:
    # timm and torchvision name the tensors of a ResNet alike.
    torch.manual_seed(0)
    reference = getattr(torchvision.models, name)(weights=None).eval()
    with torch.no_grad():
        for key, buffer in reference.named_buffers():
            if key.endswith("running_mean"):
                buffer.normal_(0, 0.1)
            elif key.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    channels = reference.fc.in_features
    small = detector_files.save_detr(tmp_path / "timm")
    weights = load_file(small / "model.safetensors")
    rest = {key: tensor for key, tensor in weights.items() if "backbone" not in key}
    rest["model.input_projection.weight"] = torch.randn(detector_files.SMALL_DETR["d_model"], channels, 1, 1)
    prefix = "model.backbone.conv_encoder.model."
    backbone = {f"{prefix}{key}": t for key, t in reference.state_dict().items() if not key.startswith("fc.")}
    save_file({**rest, **backbone}, small / "model.safetensors", {"format": "pt"})
    settings = {
        "implicit": {"backbone": name},
        "old": {"backbone": name, "use_timm_backbone": True, "use_pretrained_backbone": True, "dilation": False},
        "new": {"backbone_config": {"model_type": "timm_backbone", "backbone": name, "out_indices": [1, 2, 3, 4]}},
    }[forms]
    config = json.loads((small / "config.json").read_text())
    for key in ("backbone", "backbone_config", "use_timm_backbone"):
        config.pop(key, None)
    (small / "config.json").write_text(json.dumps({**config, **settings}))

    detector = load_detr(small, "timm", 0.0)

    assert "timm" not in sys.modules
    (resnet,) = [module for module in detector.network.modules() if type(module).__name__ == "ResNetBackbone"]
    pictures = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = torch.nn.Sequential(*list(reference.children())[:-2])(pictures)
        assert torch.allclose(resnet(pictures).feature_maps[-1], features, atol=1e-5 * float(features.abs().max()))


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ({"model_type": "timm_backbone", "backbone": "tf_efficientnet_b0"}, "tf_efficientnet_b0"),
        ({"model_type": "swin"}, "swin"),
    ],
)
def test_another_backbone_than_a_resnet_gets_a_sentence(backbone: dict, name: str, copy: Path) -> None:
    change_config(copy, backbone_config=backbone)
    with pytest.raises(UserError, match=f"backbone {name}, which cannot be built here; choose one with resnet18"):
        load_detr(copy, "mine", 0.5)


def test_a_dilated_backbone_gets_a_sentence(copy: Path) -> None:
    change_config(copy, backbone_config=None, backbone="resnet50", use_timm_backbone=True, dilation=True)
    with pytest.raises(UserError, match="resnet50 with dilation, which cannot be built here"):
        load_detr(copy, "mine", 0.5)


def test_another_model_gets_a_sentence(copy: Path) -> None:
    change_config(copy, model_type="yolos")
    with pytest.raises(UserError, match='of the type "yolos"; choose a folder with a DETR'):
        load_detr(copy, "mine", 0.5)


def test_settings_of_the_processor_cannot_bring_code(copy: Path) -> None:
    path = copy / "preprocessor_config.json"
    marker = copy / "marker"
    (copy / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoImageProcessor": "evil.Evil"}}))
    assert load_detr(copy, "mine", 0.5).labels == ("cat", "dog", "boat")
    assert not marker.exists()


def test_a_folder_without_a_processor_gets_detrs_own(copy: Path) -> None:
    (copy / "preprocessor_config.json").unlink()
    processor = load_detr(copy, "mine", 0.5).processor
    assert processor.size["shortest_edge"] == 800


def test_broken_folders_get_a_sentence(copy: Path, tmp_path: Path) -> None:
    weights, config = copy / "model.safetensors", copy / "config.json"
    good_weights, good_config = weights.read_bytes(), config.read_text()

    save_file({"model.encoder.weight": torch.zeros(2)}, weights, {"format": "pt"})
    with pytest.raises(UserError, match="tensors are missing; choose another detector"):
        load_detr(copy, "mine", 0.5)
    weights.write_bytes(good_weights[:2000])
    with pytest.raises(UserError, match=r'model\.safetensors" is damaged, or not a detector'):
        load_detr(copy, "mine", 0.5)
    weights.rename(copy / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"has no model\.safetensors; save the model with safetensors"):
        load_detr(copy, "mine", 0.5)
    weights.write_bytes(good_weights)
    change_config(copy, d_model=48)
    with pytest.raises(UserError, match="cannot be built"):
        load_detr(copy, "mine", 0.5)
    config.write_text(good_config[:50])
    with pytest.raises(UserError, match=r"config\.json in small is not readable"):
        load_detr(copy, "mine", 0.5)
    config.write_text("[]")
    with pytest.raises(UserError, match="it holds no object"):
        load_detr(copy, "mine", 0.5)
    with pytest.raises(UserError, match=r'"nowhere" has no config\.json'):
        load_detr(tmp_path / "nowhere", "mine", 0.5)
