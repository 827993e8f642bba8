"""LoRA files: names that the host's loader reads, the best approximation at a rank, files of other programs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from compinv_core.basics.errors import UserError
from compinv_core.learning.embedding_file import MAKER_KEY
from compinv_core.learning.lora_file import (
    factor_lora,
    full_difference_lora,
    low_rank_factors,
    low_rank_lora,
    write_lora,
)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_names_of_full_differences() -> None:
    lora = full_difference_lora({"a.to_k.weight": torch.ones(2, 3), "a.to_k.bias": torch.ones(2)})
    assert set(lora) == {"diffusion_model.a.to_k.diff", "diffusion_model.a.to_k.diff_b"}


@pytest.mark.parametrize(("rows", "columns", "rank"), [(40, 60, 5), (60, 40, 5), (12, 9, 4)])
def test_factors_are_the_best_approximation(rows: int, columns: int, rank: int) -> None:
    # Eckart and Young: the smallest error is the norm of the singular values left out. They fall off here, as those of
    # a training do, so that the projection can find the leading ones.
    left = torch.linalg.qr(torch.randn(rows, min(rows, columns), generator=generator())).Q
    right = torch.linalg.qr(torch.randn(columns, min(rows, columns), generator=generator())).Q
    values = 0.5 ** torch.arange(min(rows, columns), dtype=torch.float32)
    matrix = left * values @ right.T
    up, down = low_rank_factors(matrix, rank)
    assert up.shape == (rows, rank) and down.shape == (rank, columns)
    assert float((matrix - up @ down).norm()) == pytest.approx(float(values[rank:].norm()), rel=1e-3)
    assert float(up.norm()) == pytest.approx(float(down.norm()), rel=1e-4)


def test_the_same_differences_give_the_same_bits_and_leave_the_generator_alone() -> None:
    matrix = torch.randn(60, 50, generator=generator())
    before = torch.get_rng_state()
    one, other = (low_rank_lora([("a.weight", matrix)], 4, seed=1) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), before)


def test_full_rank_gives_the_difference_again() -> None:
    differences = {
        "conv.weight": torch.randn(6, 4, 3, 3, generator=generator()),
        "linear.weight": torch.randn(5, 7, generator=generator()),
        "norm.weight": torch.randn(5, generator=generator()),
        "norm.bias": torch.randn(5, generator=generator()),
    }
    lora = low_rank_lora(differences.items(), 36)
    assert lora["diffusion_model.conv.lora_up.weight"].shape == (6, 6, 1, 1)
    assert lora["diffusion_model.conv.lora_down.weight"].shape == (6, 4, 3, 3)
    assert float(lora["diffusion_model.conv.alpha"]) == 6.0
    for name in ("conv", "linear"):
        up, down = (lora[f"diffusion_model.{name}.lora_{part}.weight"].flatten(1) for part in ("up", "down"))
        assert torch.allclose(up @ down, differences[f"{name}.weight"].flatten(1), atol=1e-5)
    assert torch.equal(lora["diffusion_model.norm.diff"], differences["norm.weight"])
    assert torch.equal(lora["diffusion_model.norm.diff_b"], differences["norm.bias"])


def test_trained_factors_are_named_as_most_programs_read_them() -> None:
    conv = (torch.randn(2, 4, 3, 3, generator=generator()), torch.randn(6, 2, 1, 1, generator=generator()))
    linear = (torch.randn(3, 7, generator=generator()), torch.randn(5, 3, generator=generator()))
    names = {"input_blocks.1.0.in_layers.2": "down_blocks.0.resnets.0.conv1", "out": "out"}
    lora = factor_lora({"input_blocks.1.0.in_layers.2": conv, "out": linear}, names)
    module = "lora_unet_down_blocks_0_resnets_0_conv1"
    assert set(lora) == {f"{name}.{part}" for name in (module, "lora_unet_out")
                         for part in ("lora_up.weight", "lora_down.weight", "alpha")}  # fmt: skip
    assert torch.equal(lora[f"{module}.lora_down.weight"], conv[0])
    assert torch.equal(lora[f"{module}.lora_up.weight"], conv[1])
    # A reader scales by alpha over the rank, which is the length of lora_down: by 1.
    assert float(lora[f"{module}.alpha"]) == 2.0 and float(lora["lora_unet_out.alpha"]) == 3.0


def test_writing_replaces_our_file_and_never_anothers(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_lora({"a": torch.zeros(2)}, path, {MAKER_KEY: "1"})
    write_lora({"a": torch.ones(2)}, path, {MAKER_KEY: "1"})
    assert torch.equal(load_file(path)["a"], torch.ones(2))
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="not made by CompInv"):
        write_lora({"a": torch.ones(2)}, path, {MAKER_KEY: "1"})
    assert torch.equal(load_file(path)["a"], torch.zeros(2))
