"""Random-weight checkpoints that ComfyUI's loader takes for Stable Diffusion 1, Stable Diffusion 2 and SDXL.

They have no meaning to look at, only the right shapes: a UNet of the wanted size, text encoders of the real widths and
a TAESD autoencoder. Cross-attention weights are enlarged, or else all attention maps would be nearly flat.

Run as a script to make one: `python tests/support/checkpoints.py small /somewhere/small.safetensors`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import tempfile
from pathlib import Path

import torch

if __package__:
    from . import locations
    from .models import text_weights
else:
    import locations
    from models import text_weights

# Attention is 1 where a level has it. `tiny` has one level (latent resolution only); `small` has the four levels of
# Stable Diffusion 1 with 320 channels in each and one residual block per level; `full` is Stable Diffusion 1 itself.
_ONE_LEVEL = dict(
    channel_mult=[1],
    num_res_blocks=[1],
    transformer_depth=[1],
    transformer_depth_output=[1, 0],
    transformer_depth_middle=1,
)
_HEADS_OF_64 = dict(num_head_channels=64, num_heads=-1, use_linear_in_transformer=True)
_SD2 = dict(context_dim=1024, **_HEADS_OF_64)
# The depths are those of Segmind Vega, the smallest model of the family, plus a middle.
_SDXL = dict(
    channel_mult=[1, 1, 1],
    num_res_blocks=[2, 2, 2],
    transformer_depth=[0, 0, 1, 1, 2, 2],
    transformer_depth_output=[0, 0, 0, 1, 1, 1, 2, 2, 2],
    transformer_depth_middle=2,
    context_dim=2048,
    adm_in_channels=2816,
    num_classes="sequential",
    **_HEADS_OF_64,
)
UNETS: dict[str, dict] = {
    "tiny": _ONE_LEVEL,
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
    # Two residual blocks per level: the host looks for a sign of v-prediction in output block 11.
    "sd2": dict(
        channel_mult=[1, 1, 1, 1],
        num_res_blocks=[2, 2, 2, 2],
        transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
        transformer_depth_output=[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        transformer_depth_middle=1,
        **_SD2,
    ),
    "sdxl": _SDXL,
    # SDXL itself, which no file holds.
    "sdxl_full": dict(
        _SDXL,
        channel_mult=[1, 2, 4],
        transformer_depth=[0, 0, 2, 2, 10, 10],
        transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10],
        transformer_depth_middle=10,
    ),
    # Models that the pack refuses. They are recognised by their shapes; their weights are zeros.
    "refiner": dict(
        model_channels=384,
        channel_mult=[1],
        num_res_blocks=[8],
        transformer_depth=[0, 0, 4, 4, 4, 4, 0, 0],
        transformer_depth_output=[0] * 9,
        transformer_depth_middle=-1,
        context_dim=1280,
        adm_in_channels=2560,
        num_classes="sequential",
        **_HEADS_OF_64,
    ),
    "inpaint": dict(in_channels=9, **_ONE_LEVEL),
    "sdxl_inpaint": dict(_SDXL, in_channels=9),
    "unclip": dict(adm_in_channels=2048, num_classes="sequential", **_ONE_LEVEL, **_SD2),
}
# `_v` predict velocity; the encoders of `_deep` have all their layers, which the loader node needs.
UNETS |= {
    "sd2_v": UNETS["sd2"],
    "sd2_deep": UNETS["sd2"],
    "sdxl_v": UNETS["sdxl"],
    "sdxl_deep": UNETS["sdxl"],
    "sdxl_full_deep": UNETS["sdxl_full"],
}
REFUSED = ("refiner", "inpaint", "sdxl_inpaint", "unclip")
FEW_LAYERS = 3
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


def text_options(kind: str) -> dict:
    """Return the host's `te_model_options` for this kind of checkpoint: how many layers its encoders have."""
    names = {"sdxl": ("clip_l", "clip_g"), "sd2": ("clip_h",)}.get(kind.partition("_")[0], ())
    if kind.endswith("_deep") or kind in REFUSED:
        return {}
    return {f"{name}_model_config": {"num_hidden_layers": FEW_LAYERS} for name in names}


def build(kind: str, dtype: torch.dtype = torch.float16, seed: int = 0) -> Path:
    """Return the path of a checkpoint of this kind; it is made once per machine and kept in the temporary folder."""
    sources = Path(__file__).read_bytes() + Path(text_weights.__file__).read_bytes()
    recipe = hashlib.sha256(sources).hexdigest()[:12]
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
        scale = 0.13025 if kind.startswith(("sdxl", "refiner")) else 0.18215
        state |= {f"first_stage_model.{key}": value for key, value in autoencoder_state(scale).items()}
        state |= _text_state(kind)
    if kind == "sdxl_v":
        state["v_pred"] = torch.zeros(0)
    state = {key: value.to(dtype).contiguous() if value.is_floating_point() else value for key, value in state.items()}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    _save(state, temporary)
    os.replace(temporary, path)


def _save(state: dict[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file in which meta tensors are zeros, at the end, that take no room on the disk."""
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    names = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.int64: "I64"}
    end = 0
    ordered = sorted(state.items(), key=lambda item: (item[1].is_meta, -item[1].element_size(), item[0]))
    for key, value in ordered:
        start, end = end, end + value.numel() * value.element_size()
        header[key] = {"dtype": names[value.dtype], "shape": list(value.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, value in ordered:
            if not value.is_meta:
                file.write(value.reshape(-1).view(torch.uint8).numpy().data)
        file.truncate(8 + len(text) + end)


def _host_modules() -> None:
    locations.host_path()
    import comfy.cli_args

    comfy.cli_args.args.cpu = True


def _unet_state(kind: str) -> dict[str, torch.Tensor]:
    _host_modules()
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    options = {key: list(value) if isinstance(value, list) else value for key, value in UNETS[kind].items()}
    if kind in REFUSED:
        return UNetModel(**{**SHARED_UNET, **options}, dtype=torch.float32, device="meta").state_dict()
    unet = UNetModel(**{**SHARED_UNET, **options}, dtype=torch.float32)
    initialise(unet)
    for name, parameter in unet.named_parameters():
        if name.endswith(("attn2.to_q.weight", "attn2.to_k.weight")):
            parameter.data.mul_(4.0)
        if kind == "sd2_v" and name == "output_blocks.11.1.transformer_blocks.0.norm1.bias":
            parameter.data.normal_(std=0.2)
    return unet.state_dict()


def _text_state(kind: str) -> dict[str, torch.Tensor]:
    shapes = text_weights
    if kind in REFUSED:
        return {}
    if kind in ("tiny", "small", "full"):
        return _prefixed("cond_stage_model.transformer.text_model.", shapes.transformers_clip(shapes.CLIP_L, 12))
    deep, few = kind.endswith("_deep"), FEW_LAYERS
    if kind.startswith("sd2"):
        clip_h = shapes.open_clip(shapes.CLIP_H, few)
        if deep:
            clip_h = shapes.deepened(clip_h, "transformer.resblocks.", few, shapes.CLIP_H.layers)
        return _prefixed("cond_stage_model.model.", clip_h)
    clip_l, clip_g = shapes.transformers_clip(shapes.CLIP_L, few), shapes.open_clip(shapes.CLIP_G, few)
    if deep:
        clip_l = shapes.deepened(clip_l, "encoder.layers.", few, shapes.CLIP_L.layers)
        clip_g = shapes.deepened(clip_g, "transformer.resblocks.", few, shapes.CLIP_G.layers)
    return _prefixed("conditioner.embedders.0.transformer.text_model.", clip_l) | _prefixed(
        "conditioner.embedders.1.model.", clip_g
    )


def _prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


def autoencoder_state(scale: float) -> dict[str, torch.Tensor]:
    """Return a random TAESD whose latents have the scale of a family's."""
    from comfy.taesd.taesd import TAESD

    autoencoder = TAESD(latent_channels=4)
    initialise(autoencoder)
    autoencoder.vae_scale.data.fill_(scale)
    return autoencoder.state_dict()


def initialise(module: torch.nn.Module) -> None:
    """Draw the weights of a network of the host's layers."""
    # The host's layers skip initialisation, and the real recipe's zero layers would make the output independent of x.
    for layer in module.modules():
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)):
            torch.nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
            if layer.bias is not None:
                torch.nn.init.uniform_(layer.bias, -0.02, 0.02)
        elif isinstance(layer, torch.nn.Embedding):
            torch.nn.init.normal_(layer.weight, std=0.0137)
        elif isinstance(layer, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
            torch.nn.init.ones_(layer.weight)
            torch.nn.init.zeros_(layer.bias)


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
