"""The miniature world's training: bounded by the clock, in several processes, leaving weights that are loaded again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from miniworld.networks.checkpoint import load_small
from miniworld.networks.diffusion import alphas_cumprod, loss_weights
from miniworld.training.generator import Generator, padded, training_loss
from miniworld.training.pictures import FIELDS, Store, render
from miniworld.training.plan import Plan
from miniworld.world.words import CONTEXT, STORED, WORDS, rows_of, token_ids
from support.locations import REPOSITORY, host_path


def test_words_are_single_tokens_of_the_hosts_tokenizer() -> None:
    import json

    entries = json.loads((host_path() / "comfy/sd1_tokenizer/vocab.json").read_text())
    assert all(entries[f"{word}</w>"] == token for word, token in WORDS.items())
    assert token_ids("a cat")[:4] == [49406, entries["a</w>"], entries["cat</w>"], 49407]


def test_renderers_fill_their_files(tmp_path: Path) -> None:
    plan = Plan(60.0, tmp_path, tmp_path, renderers=1, capacity=12)
    store = Store(plan, create=True)
    render(plan, 0)
    assert store.count() == 12
    which = store.available()
    assert {name: store.take(name, which).shape for name in FIELDS} == {n: (12, *s) for n, (_, s) in FIELDS.items()}
    assert store.take("pictures", which).reshape(12, -1).std(1).min() > 0
    assert (store.take("objects", which)[:, 0, 0] >= 0).all()
    same = Store(plan)
    assert np.array_equal(same.take("captions", which), store.take("captions", which))


def test_generator_learns_from_captions() -> None:
    torch.manual_seed(0)
    model = Generator()
    schedule = alphas_cumprod(), loss_weights()
    rows = padded(torch.tensor([rows_of("a red cat", STORED), rows_of("", STORED)]))
    assert rows.shape == (2, CONTEXT)
    clean = torch.randn(2, 4, 16, 16)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(6):
        torch.manual_seed(1)
        loss = training_loss(model.unet, model.text, clean, rows, schedule)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.grad is not None for p in model.parameters())


def test_the_command_leaves_usable_weights(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "miniworld.train", "--minutes", "0.05", "--batch", "2", "--pictures", "40",
        "--renderers", "1", "--only", "autoencoder", "generator", "--into", str(tmp_path / "weights"),
        "--scratch", str(tmp_path / "scratch"),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    names = {"autoencoder", "unet", "text-encoder"}
    assert {path.stem for path in (tmp_path / "weights").glob("*.safetensors")} == names
    for name in names:
        tensors, _ = load_small(tmp_path / "weights" / f"{name}.safetensors")
        assert all(tensor.isfinite().all() for tensor in tensors.values())
