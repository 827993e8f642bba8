"""What a training changed in the diffusion model, as a LoRA file that ComfyUI's own loaders read.

A file of *full* differences holds ``<weight>.diff`` and gives the trained model again, bit for bit. A *low-rank* file
holds two thin factors for every matrix: the best approximation of the difference at that rank, or those that were
trained themselves, which give the trained model again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from ..basics.atomic_file import remove_leftovers
from ..basics.errors import UserError
from ..basics.tensor_file import read_metadata, write_tensors
from .embedding_file import MAKER_KEY

NETWORK_PREFIX = "diffusion_model."

_LORA_PREFIX = "lora_unet_"
_WEIGHT, _BIAS = ".weight", ".bias"
# Random directions beside those wanted, and passes over the matrix: Halko, Martinsson and Tropp (2011), section 4.
_OVERSAMPLING = 8
_POWER_ITERATIONS = 4


def full_difference_lora(differences: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Name differences, by the parameters' names in the diffusion network, as ComfyUI's LoRA loader expects them.

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
    lora: dict[str, torch.Tensor] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, difference in differences:
            if difference.ndim < 2:
                lora[_difference_key(name)] = difference.contiguous()
                continue
            up, down = low_rank_factors(difference.flatten(1), rank)
            module = NETWORK_PREFIX + name.removesuffix(_WEIGHT)
            kernel = difference.shape[2:]
            lora[f"{module}.lora_up.weight"] = up.reshape(*up.shape, *(1 for _ in kernel)).contiguous()
            lora[f"{module}.lora_down.weight"] = down.reshape(-1, *difference.shape[1:]).contiguous()
            lora[f"{module}.alpha"] = torch.tensor(float(up.shape[1]))
    return lora


def factor_lora(
    factors: Mapping[str, tuple[torch.Tensor, torch.Tensor]], names: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    """Name trained factors as most programs read them, ``lora_unet_<layer, with underscores>.lora_up.weight``.

    Parameters
    ----------
    factors : mapping of str to (Tensor, Tensor)
        ``down`` (r, in, k, k) and ``up`` (out, r, 1, 1), or (r, in) and (out, r), by the layers' names in the network.
    names : mapping of str to str
        What the files of the family call these layers.

    Returns
    -------
    dict of str to Tensor
        ``lora_up``, ``lora_down`` and ``alpha``, which is the rank, of every layer.
    """
    lora: dict[str, torch.Tensor] = {}
    for layer, (down, up) in factors.items():
        name = _LORA_PREFIX + names[layer].replace(".", "_")
        lora[f"{name}.lora_up.weight"], lora[f"{name}.lora_down.weight"] = up.contiguous(), down.contiguous()
        lora[f"{name}.alpha"] = torch.tensor(float(len(down)))
    return lora


def low_rank_factors(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors (m, r) and (r, n) of the best approximation of a matrix (m, n), r = min(rank, m, n).

    Its truncated singular value decomposition; both carry the square roots of the singular values. Large matrices are
    projected at random first, from torch's own generator.
    """
    width = rank + _OVERSAMPLING
    if width < min(matrix.shape):
        left, values, right = torch.svd_lowrank(matrix, width, niter=_POWER_ITERATIONS)
    else:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        right = right.T
    root = values[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:, :rank].T


def write_lora(lora: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a LoRA file; the metadata hold `compinv_core.learning.embedding_file.MAKER_KEY`.

    Raises
    ------
    UserError
        When `path` holds a file that this pack did not make: it is never overwritten.
    """
    check_lora_replaceable(path)
    write_tensors(path, lora, metadata)


def check_lora_replaceable(path: Path) -> None:
    """Refuse to overwrite a LoRA file that this pack did not make; `path` may not exist.

    Raises
    ------
    UserError
    """
    remove_leftovers(path.parent)
    if path.exists() and MAKER_KEY not in read_metadata(path):
        raise UserError(
            f"{path.name} already exists among your LoRAs and was not made by CompInv; "
            "choose another name, or move that file away."
        )


def _difference_key(name: str) -> str:
    if name.endswith(_BIAS):
        return f"{NETWORK_PREFIX}{name.removesuffix(_BIAS)}.diff_b"
    return f"{NETWORK_PREFIX}{name.removesuffix(_WEIGHT)}.diff"
