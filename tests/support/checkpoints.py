"""Random-weight checkpoints that ComfyUI's CheckpointLoaderSimple takes for Stable Diffusion 1.

They have no meaning to look at, only the right shapes: a UNet of the wanted size, the full CLIP-L text encoder and a
TAESD autoencoder. Cross-attention weights are enlarged, or else all attention maps would be nearly flat.

Run as a script to make one: `python tests/support/checkpoints.py small /somewhere/small.safetensors`.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

if __package__:
    from . import locations
else:
    import locations

# Attention is 1 where a level has it. `tiny` has one level (latent resolution only); `small` has the four levels of
# Stable Diffusion 1 with 320 channels in each and one residual block per level; `full` is Stable Diffusion 1 itself.
# `sdxl` is taken for an SDXL-family model (Segmind Vega) and has no text encoder: a model that the pack must refuse.
UNETS: dict[str, dict] = {
    "tiny": dict(
        channel_mult=[1],
        num_res_blocks=[1],
        transformer_depth=[1],
        transformer_depth_output=[1, 0],
        transformer_depth_middle=1,
    ),
    "small": dict(
        channel_mult=[1, 1, 1, 1],
        num_res_blocks=[1, 1, 1, 1],
        transformer_depth=[1, 1, 1, 0],
        transformer_depth_output=[1, 1, 1, 1, 1, 1, 0, 0],
        transformer_depth_middle=1,
    ),
    "full": dict(
        channel_mult=[1, 2, 4, 4],
        num_res_blocks=[2, 2, 2, 2],
        transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
        transformer_depth_output=[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        transformer_depth_middle=1,
    ),
    "sdxl": dict(
        channel_mult=[1, 1, 1],
        num_res_blocks=[2, 2, 2],
        transformer_depth=[0, 0, 1, 1, 2, 2],
        transformer_depth_output=[0, 0, 0, 1, 1, 1, 2, 2, 2],
        transformer_depth_middle=-1,
        context_dim=2048,
        adm_in_channels=2816,
        num_classes="sequential",
        use_linear_in_transformer=True,
        num_head_channels=64,
        num_heads=-1,
    ),
}
SHARED_UNET = dict(
    image_size=32,
    in_channels=4,
    out_channels=4,
    model_channels=320,
    num_heads=8,
    num_head_channels=-1,
    use_spatial_transformer=True,
    context_dim=768,
    legacy=False,
    use_linear_in_transformer=False,
)


def build(kind: str, dtype: torch.dtype = torch.float16, seed: int = 0) -> Path:
    """Return the path of a checkpoint of this kind; it is made once per machine and kept in the temporary folder."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"compinv-test-checkpoints-{os.getuid()}-{recipe}"
    path = folder / f"{kind}-{str(dtype).removeprefix('torch.')}-{seed}.safetensors"
    if not path.is_file():
        folder.mkdir(exist_ok=True)
        write(kind, path, dtype, seed)
    return path


def write(kind: str, path: Path, dtype: torch.dtype = torch.float16, seed: int = 0) -> None:
    """Write a checkpoint of this kind to `path`, drawn from the seed."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.manual_seed(seed)
        state = {f"model.diffusion_model.{key}": value for key, value in _unet_state(kind).items()}
        state |= {f"first_stage_model.{key}": value for key, value in _autoencoder_state().items()}
        if kind != "sdxl":
            state |= {f"cond_stage_model.transformer.text_model.{key}": value for key, value in _clip_state().items()}
    state = {key: value.to(dtype).contiguous() if value.is_floating_point() else value for key, value in state.items()}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    save_file(state, str(temporary), metadata={"format": "pt"})
    os.replace(temporary, path)


def _host_modules() -> None:
    locations.host_path()
    import comfy.cli_args

    comfy.cli_args.args.cpu = True


def _unet_state(kind: str) -> dict[str, torch.Tensor]:
    _host_modules()
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    options = {key: list(value) if isinstance(value, list) else value for key, value in UNETS[kind].items()}
    unet = UNetModel(**{**SHARED_UNET, **options}, dtype=torch.float32)
    _initialise(unet)
    for name, parameter in unet.named_parameters():
        if name.endswith(("attn2.to_q.weight", "attn2.to_k.weight")):
            parameter.data.mul_(4.0)
    return unet.state_dict()


def _autoencoder_state() -> dict[str, torch.Tensor]:
    from comfy.taesd.taesd import TAESD

    autoencoder = TAESD(latent_channels=4)
    _initialise(autoencoder)
    autoencoder.vae_scale.data.fill_(0.18215)
    return autoencoder.state_dict()


def _initialise(module: torch.nn.Module) -> None:
    # The host's layers skip initialisation, and the real recipe's zero layers would make the output independent of x.
    for layer in module.modules():
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)):
            torch.nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
            if layer.bias is not None:
                torch.nn.init.uniform_(layer.bias, -0.02, 0.02)
        elif isinstance(layer, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
            torch.nn.init.ones_(layer.weight)
            torch.nn.init.zeros_(layer.bias)


def _clip_state(vocabulary: int = 49408, width: int = 768, layers: int = 12, hidden: int = 3072) -> dict:
    def linear(rows: int, columns: int, std: float) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(rows, columns) * std, torch.zeros(rows)

    state = {
        "embeddings.token_embedding.weight": torch.randn(vocabulary, width) * 0.0137,
        "embeddings.position_embedding.weight": torch.randn(77, width) * 0.01,
        "embeddings.position_ids": torch.arange(77)[None],
    }
    norms = ["final_layer_norm"]
    linears = {}
    for layer in range(layers):
        prefix = f"encoder.layers.{layer}"
        norms += [f"{prefix}.layer_norm1", f"{prefix}.layer_norm2"]
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linears[f"{prefix}.self_attn.{name}"] = linear(width, width, width**-0.5)
        linears[f"{prefix}.mlp.fc1"] = linear(hidden, width, width**-0.5)
        linears[f"{prefix}.mlp.fc2"] = linear(width, hidden, hidden**-0.5)
    for name, (weight, bias) in linears.items():
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    for name in norms:
        state |= {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}
    return state


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
