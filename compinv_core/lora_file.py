"""What a training changed in the diffusion model, as a LoRA file that ComfyUI's own loaders read.

A file of *full* differences holds ``<weight>.diff`` and gives the trained model again, bit for bit. A *low-rank* file
holds two thin factors for every matrix, the best approximation of the difference at that rank.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .atomic_file import replacing
from .embedding_file import MAKER_KEY
from .errors import UserError

NETWORK_PREFIX = "diffusion_model."

_WEIGHT, _BIAS = ".weight", ".bias"
# Random directions beside those wanted, and passes over the matrix: Halko, Martinsson and Tropp (2011), section 4.
_OVERSAMPLING = 8
_POWER_ITERATIONS = 4


def full_difference_lora(differences: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Name differences as ComfyUI's LoRA loader expects them.

    Parameters
    ----------
    differences : mapping of str to Tensor
        By the parameter's name in the diffusion network.

    Returns
    -------
    dict of str to Tensor
        ``diffusion_model.<module>.diff`` for weights, ``.diff_b`` for biases; contiguous.
    """
    return {_difference_key(name): difference.contiguous() for name, difference in differences.items()}


def low_rank_lora(differences: Iterable[tuple[str, torch.Tensor]], rank: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Approximate differences by an ordinary LoRA.

    Parameters
    ----------
    differences : iterable of (str, Tensor)
        With the parameter's name in the diffusion network; read one by one, since a whole network takes a while.
        Convolutions (out, in, k, k) count as matrices (out, in k k).
    rank : int
        Of every matrix; less where the matrix is smaller.
    seed : int
        Of the random projections.

    Returns
    -------
    dict of str to Tensor
        ``lora_up``, ``lora_down`` and ``alpha`` (the rank) of every matrix; biases and norms as full differences, since
        they are vectors.
    """
    generator = torch.Generator().manual_seed(seed)
    lora: dict[str, torch.Tensor] = {}
    for name, difference in differences:
        if difference.ndim < 2:
            lora[_difference_key(name)] = difference.contiguous()
            continue
        up, down = low_rank_factors(difference.flatten(1), rank, generator)
        module = NETWORK_PREFIX + name.removesuffix(_WEIGHT)
        kernel = difference.shape[2:]
        lora[f"{module}.lora_up.weight"] = up.reshape(*up.shape, *(1 for _ in kernel)).contiguous()
        lora[f"{module}.lora_down.weight"] = down.reshape(-1, *difference.shape[1:]).contiguous()
        lora[f"{module}.alpha"] = torch.tensor(float(up.shape[1]))
    return lora


def low_rank_factors(matrix: torch.Tensor, rank: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors of the best approximation of a matrix at a rank: its truncated singular value decomposition.

    Large matrices are first projected onto a random subspace that power iterations turn to the leading directions.

    Parameters
    ----------
    matrix : Tensor (m, n), float32
    rank : int
    generator : torch.Generator
        CPU.

    Returns
    -------
    up : Tensor (m, r)
    down : Tensor (r, n)
        ``r = min(rank, m, n)``; both carry the square roots of the singular values.
    """
    width = rank + _OVERSAMPLING
    if width < min(matrix.shape):
        directions = torch.randn(matrix.shape[1], width, generator=generator).to(matrix)
        basis = torch.linalg.qr(matrix @ directions).Q
        for _ in range(_POWER_ITERATIONS):
            basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
        left, values, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
        left = basis @ left
    else:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    root = values[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]


def write_lora(lora: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a LoRA file, through a temporary file that is renamed.

    Parameters
    ----------
    lora : mapping of str to Tensor
    path : Path
    metadata : mapping of str to str
        Must hold `compinv_core.embedding_file.MAKER_KEY`.

    Raises
    ------
    UserError
        When `path` holds a file that this pack did not make: it is never overwritten.
    """
    check_lora_replaceable(path)
    with replacing(path) as temporary:
        save_file(dict(lora), temporary, dict(metadata))


def check_lora_replaceable(path: Path) -> None:
    """Refuse to overwrite a LoRA file that this pack did not make.

    Parameters
    ----------
    path : Path
        May not exist.

    Raises
    ------
    UserError
    """
    if not path.exists():
        return
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            ours = MAKER_KEY in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        ours = False
    if not ours:
        raise UserError(
            f"{path.name} already exists among your LoRAs and was not made by CompInv; "
            "choose another name, or move that file away."
        )


def _difference_key(name: str) -> str:
    if name.endswith(_BIAS):
        return f"{NETWORK_PREFIX}{name.removesuffix(_BIAS)}.diff_b"
    return f"{NETWORK_PREFIX}{name.removesuffix(_WEIGHT)}.diff"
