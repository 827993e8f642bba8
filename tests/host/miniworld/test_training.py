"""The miniature UNet's training: where it starts and which stretches it does."""

from __future__ import annotations

import pytest
import torch

from miniworld.networks.diffusion import LatentScale
from miniworld.networks.unet import UNet
from miniworld.training import unet as train_unet
from miniworld.training.fitting import Schedule

CAPTIONS = ["a ball", "a cup and a cat"] * 2


@pytest.fixture
def latents():
    return torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Two stretches of one step each, of two pictures."""
    stretch = train_unet.Stretch(Schedule(steps=1, decay_from=0, warmup=1), pairs=0.5)
    monkeypatch.setattr(train_unet, "STRETCHES", (stretch, stretch))
    monkeypatch.setattr(train_unet, "BATCH", 2)


def test_from_the_seed_all_stretches_are_trained_on_the_datas_own_scale(tmp_path, latents):
    _, scale = train_unet.train_unet(latents, CAPTIONS, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["unet-1.pt", "unet-2.pt"]
    assert scale == LatentScale.of(latents)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_given_weights_get_the_last_stretch_on_their_own_scale(tmp_path, latents, bfloat16):
    torch.manual_seed(5)
    given, own_scale = UNet().state_dict(), LatentScale(0.5, 3.0)
    before = {name: tensor.clone() for name, tensor in given.items()}
    trained, scale = train_unet.train_unet(latents, CAPTIONS, tmp_path, (given, own_scale), bfloat16=bfloat16)
    assert [file.name for file in tmp_path.iterdir()] == ["unet-2.pt"]
    assert scale == own_scale
    assert all(tensor.dtype == torch.float32 for tensor in trained.values())
    moved = {name: float((trained[name] - before[name]).abs().max()) for name in trained}
    # Half of the one step goes into the average: every weight stays near, and the network did learn.
    assert 0 < max(moved.values()) < 0.05
