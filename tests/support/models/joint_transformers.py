"""Diffusion transformers with attention over text and picture together: the host's classes, and their real sizes."""

from __future__ import annotations

from typing import Any

import torch

CONTEXT_WIDTH = 32
TEXT_TOKENS = 8
_FLUX = dict(
    in_channels=16, out_channels=16, vec_in_dim=768, context_in_dim=4096, hidden_size=3072, mlp_ratio=4.0,
    num_heads=24, depth=19, depth_single_blocks=38, axes_dim=[16, 56, 56], theta=10000, patch_size=2, qkv_bias=True,
    guidance_embed=True, txt_ids_dims=[],
)  # fmt: skip
_SMALL_FLUX = dict(
    in_channels=4, out_channels=4, vec_in_dim=8, context_in_dim=CONTEXT_WIDTH, hidden_size=32, mlp_ratio=2.0,
    num_heads=2, depth=2, depth_single_blocks=2, axes_dim=[4, 6, 6],
)  # fmt: skip
_QWEN_IMAGE = dict(in_channels=64, out_channels=16)
_SMALL_QWEN_IMAGE = dict(
    in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
    joint_attention_dim=CONTEXT_WIDTH, axes_dims_rope=(4, 6, 6),
)  # fmt: skip
_Z_IMAGE = dict(
    in_channels=16, dim=3840, n_layers=30, n_refiner_layers=2, n_heads=30, n_kv_heads=30, qk_norm=True,
    cap_feat_dim=2560, axes_dims=[32, 48, 48], rope_theta=256.0, ffn_dim_multiplier=8 / 3, z_image_modulation=True,
    pad_tokens_multiple=32, time_scale=1000.0,
)  # fmt: skip
# The width of what the noise level modulates is 256 in the host, whatever the width of the layers.
_SMALL_Z_IMAGE = dict(
    in_channels=4, dim=256, n_layers=2, n_refiner_layers=1, n_heads=16, n_kv_heads=16, multiple_of=8,
    cap_feat_dim=CONTEXT_WIDTH, axes_dims=[4, 6, 6], ffn_dim_multiplier=1.0, pad_tokens_multiple=8,
)  # fmt: skip

NAMES = ("Flux", "Qwen-Image", "Z-Image")


def parameters(name: str) -> int:
    """Count the parameters of the full-size model, which takes no memory."""
    return sum(parameter.numel() for parameter in _build(name, small=False, device="meta").parameters())


def small_transformer(name: str) -> torch.nn.Module:
    """Build a small model with random weights."""
    network = _build(name, small=True, device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            scale, mean = (0.2, 0.0) if parameter.dim() > 1 else (0.1, 1.0)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + mean).requires_grad_(False)
    return network


def evaluate(
    name: str, network: Any, latents: torch.Tensor, context: torch.Tensor, options: dict[str, Any]
) -> torch.Tensor:
    """Evaluate a small model at σ = 0.7, for latents (1, 4, h, w) and a prompt (1, T, D), with the host's options."""
    sigma = torch.tensor([0.7])
    if name == "Flux":
        pooled, guidance = torch.ones(1, 8), torch.tensor([3.5])
        return network(latents, sigma, context, y=pooled, guidance=guidance, transformer_options=options)
    if name == "Qwen-Image":
        return network(latents[:, :, None], sigma, context, transformer_options=options)
    return network(latents, sigma, context, num_tokens=context.shape[1], transformer_options=options)


def norms(network: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the norms of a model."""
    return [module for module in network.modules() if isinstance(module, torch.nn.LayerNorm)]


def _build(name: str, small: bool, device: str) -> torch.nn.Module:
    import comfy.ops
    from comfy.ldm.flux.model import Flux
    from comfy.ldm.lumina.model import NextDiT
    from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel

    kinds: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
        "Flux": (Flux, _FLUX, _SMALL_FLUX),
        "Qwen-Image": (QwenImageTransformer2DModel, _QWEN_IMAGE, _SMALL_QWEN_IMAGE),
        "Z-Image": (NextDiT, _Z_IMAGE, _SMALL_Z_IMAGE),
    }
    kind, sizes, smaller = kinds[name]
    sizes = {**sizes, **smaller} if small else sizes
    return kind(**sizes, device=device, dtype=torch.float32, operations=comfy.ops.manual_cast)
