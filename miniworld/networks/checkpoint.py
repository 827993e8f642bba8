"""The miniature world's weights: kept small in the repository, assembled into an SD1.5 checkpoint on first use.

Stored are the trained tensors of autoencoder, UNet and text encoder: large ones as int8 with one scale per output row,
the others in float16. The assembled file is an ordinary single-file checkpoint which the host's
``CheckpointLoaderSimple`` takes for Stable Diffusion 1.5 with a TAESD autoencoder.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from . import text_encoder, unet
from .diffusion import LatentScale

WEIGHTS = Path(__file__).parents[1] / "weights"
CHECKPOINT_NAME = "miniworld.safetensors"
QUANTISED_FROM = 2000
"""Matrices with at least this many elements are stored as int8."""
HOST_LATENT_FACTOR = 0.18215
"""The host divides latents by this before it decodes them as SD1.5's."""


def quantise(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Large matrices to int8 rows with float16 scales under ``<name>.scale``, the rest to float16."""
    small = {}
    for name, tensor in weights.items():
        if tensor.ndim >= 2 and tensor.numel() >= QUANTISED_FROM:
            rows = tensor.float().flatten(1)
            scale = (rows.abs().amax(1) / 127).clamp(min=1e-7).half()
            small[name] = (rows / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8).reshape(tensor.shape)
            small[f"{name}.scale"] = scale
        else:
            small[name] = tensor.half()
    return {name: tensor.contiguous() for name, tensor in small.items()}


def dequantise(small: dict[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of :func:`quantise` up to rounding, float32."""
    weights = {}
    for name, tensor in small.items():
        if name.endswith(".scale"):
            continue
        scale = small.get(f"{name}.scale")
        rows = tensor.float()
        weights[name] = rows if scale is None else (rows.flatten(1) * scale.float()[:, None]).reshape(tensor.shape)
    return weights


def save_small(weights: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    path.parent.mkdir(exist_ok=True)
    save_file(quantise(weights), path.with_suffix(".part"), metadata)
    os.replace(path.with_suffix(".part"), path)


def load_small(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        return dequantise(tensors), file.metadata() or {}


def load_unet() -> tuple[dict[str, Tensor], LatentScale]:
    """The UNet in the repository, and the scale of the latents it was trained on."""
    weights, metadata = load_small(WEIGHTS / "unet.safetensors")
    return weights, LatentScale(float(metadata["latent_shift"]), float(metadata["latent_scale"]))


def load_text_encoder() -> dict[str, Tensor]:
    """The text encoder in the repository, as `text_encoder.TextEncoder` takes it."""
    return load_small(WEIGHTS / "text-encoder.safetensors")[0]


def rounded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights as they are after storing and loading, float32."""
    return dequantise(quantise(weights))


def assemble(destination: Path) -> Path:
    """Write the full checkpoint, unless an up-to-date one is there.

    Parameters
    ----------
    destination
        The file to write, such as ``models/checkpoints/miniworld.safetensors``.
    """
    files = [WEIGHTS / f"{name}.safetensors" for name in ("autoencoder", "unet", "text-encoder")]
    sources = [*files, Path(text_encoder.__file__)]
    if destination.exists() and destination.stat().st_mtime >= max(s.stat().st_mtime for s in sources):
        return destination
    vae, _ = load_small(sources[0])
    denoiser, scale = load_unet()
    host_scale = HOST_LATENT_FACTOR / scale.scale
    tensors = {f"model.diffusion_model.{k}": v.half() for k, v in unet.host_state_dict(denoiser).items()}
    tensors |= {f"first_stage_model.{k}": v.float() for k, v in vae.items()}
    tensors["first_stage_model.vae_scale"] = torch.tensor(host_scale)
    tensors["first_stage_model.vae_shift"] = torch.tensor(-scale.shift / host_scale)
    prefix = "cond_stage_model.transformer.text_model."
    tensors |= {f"{prefix}{k}": v.half() for k, v in text_encoder.host_state_dict(load_text_encoder()).items()}
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_suffix(".part")
    save_file(
        {k: v.contiguous() for k, v in tensors.items()}, temporary, {"format": "pt", "title": "CompInv miniature world"}
    )
    os.replace(temporary, destination)
    return destination
