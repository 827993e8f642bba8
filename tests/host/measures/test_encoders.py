"""Encoders in the host's folders and memory: chosen, downloaded once, beside the host's own CLIP Vision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from support import host
from support.hub import Hub, local_hub
from support.models.encoder_folders import save_clip, save_dino, save_dinov2

NAME = "openai/clip-vit-base-patch32"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of encoders of the host in process."""
    host.start()
    import folder_paths

    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    return tmp_path / "models" / "compinv" / "encoders"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[type[Hub]]:
    """A hub with a small CLIP under the name of the paper's, which has no safetensors there."""
    save_clip(tmp_path / "hub", pickled=True)
    with local_hub(NAME, tmp_path / "hub") as here:
        yield here


def test_a_clip_of_the_hub_is_downloaded_once_in_whatever_form_it_has(folder: Path, hub: type[Hub]) -> None:
    from compinv_core.host.measures.encoders import chosen_clip, clip_names

    clip = chosen_clip(NAME)
    assert clip.name == NAME and clip.encode_text("a cat").shape == (16,)
    assert [path.rpartition("/")[2] for path in hub.asked] == [
        "config.json", "preprocessor_config.json", "model.safetensors", "pytorch_model.bin", "vocab.json", "merges.txt"
    ]  # fmt: skip
    chosen_clip(NAME)
    assert len(hub.asked) == 6
    # It is offered once, by its name on the hub.
    assert clip_names().count(NAME) == 1 and len(clip_names()) == 3


def test_half_a_download_is_no_download(folder: Path, hub: type[Hub]) -> None:
    from compinv_core.basics.errors import UserError
    from compinv_core.host.measures.encoders import chosen_clip

    hub.cut = "pytorch_model.bin"
    with pytest.raises(UserError, match=r"pytorch_model\.bin of openai/clip-vit-base-patch32 could not be downloaded"):
        chosen_clip(NAME)
    hub.cut = ""
    assert chosen_clip(NAME).encode_images(torch.rand(2, 20, 30, 3)).shape == (2, 16)


def test_own_folders_are_offered_by_what_they_hold(folder: Path) -> None:
    from compinv_core.basics.errors import UserError
    from compinv_core.host.measures.encoders import HUB_LOOKS, NO_LOOK, chosen_look, clip_names, look_names

    assert chosen_look(NO_LOOK) is None
    save_clip(folder / "mine")
    save_dino(folder / "dino")
    save_dinov2(folder / "dinov2")
    (folder / "empty").mkdir()
    assert clip_names()[1:2] == ["mine"] and look_names() == [NO_LOOK, "dino", "dinov2", *HUB_LOOKS]
    for name in ("dino", "dinov2"):
        look = chosen_look(name)
        assert look is not None and look.encode_images(torch.rand(3, 40, 40, 3)).shape == (3, 32)
    for name in ("nowhere", "..", ""):
        with pytest.raises(UserError, match="choose one that is there"):
            chosen_look(name)


def test_a_picture_of_nan_gets_a_sentence_and_inference_mode_does_no_harm(folder: Path) -> None:
    from compinv_core.basics.errors import UserError
    from compinv_core.host.measures.encoders import chosen_clip

    save_clip(folder / "mine")
    with torch.inference_mode():
        clip = chosen_clip("mine")
        with pytest.raises(UserError, match="a picture holds NaN or infinity"):
            clip.encode_images(torch.full((1, 8, 8, 3), torch.nan))
    assert clip.encode_images(torch.rand(1, 8, 8, 3)).isfinite().all()


def test_the_hosts_own_vision_measures_too(folder: Path) -> None:
    import comfy.clip_vision

    from compinv_core.host.measures.encoders import HostVision

    vision = comfy.clip_vision.ClipVisionModel(
        {
            "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 8, "num_channels": 3, "projection_dim": 16,
            "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
        }
    )  # fmt: skip
    with torch.no_grad():
        for weight in vision.model.parameters():
            torch.nn.init.normal_(weight, std=0.05)
    features = HostVision(vision).encode_images(torch.rand(2, 40, 40, 3))
    assert features.shape == (2, 16) and features.dtype == torch.float32 and features.isfinite().all()
