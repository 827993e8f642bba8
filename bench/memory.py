"""What trainings of SDXL need by the estimate that the nodes log and check, part by part, in GB.

    python bench/memory.py                # 1024 x 1024, half precision, batch 1
    python bench/memory.py --size 768

The networks have their full size and take no memory. One class picture goes with the photo where the model is trained.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="side of the pictures in pixels")
    size = parser.parse_args().size
    import torch

    from support.models.full_size import full_network

    network = full_network("sdxl", torch.float16)
    import comfy.sdxl_clip

    from compinv_core.host.family import SDXL
    from compinv_core.host.learning.memory import needed_memory
    from compinv_core.learning.settings import InversionConfig
    from compinv_core.learning.tuning_settings import CustomDiffusionConfig, DreamBoothConfig

    text = comfy.sdxl_clip.SDXLClipModel(device="meta", dtype=torch.float16)
    unet, encoders = (sum(p.numel() * p.element_size() for p in module.parameters()) for module in (network, text))
    print(f"models: UNet {unet / 1e9:.2f}, text encoders {encoders / 1e9:.2f}")
    print(f"{'':56}{'weights':>9}{'gradients':>11}{'optimiser':>11}{'activations':>13}{'with models':>13}")
    one, twice = {"batch_size": 1}, {"batch_size": 1, "gradient_checkpointing": True}
    configs = {
        "textual inversion, gradient_checkpointing": InversionConfig(**twice),
        "textual inversion": InversionConfig(**one),
        "Custom Diffusion, train_rank 16, gradient_checkpointing": CustomDiffusionConfig(**twice, train_rank=16),
        "Custom Diffusion, gradient_checkpointing": CustomDiffusionConfig(**twice),
        "DreamBooth, train_rank 16, gradient_checkpointing": DreamBoothConfig(**twice, train_rank=16),
        "DreamBooth, train_rank 32, gradient_checkpointing": DreamBoothConfig(**twice, train_rank=32),
        "DreamBooth, gradient_checkpointing": DreamBoothConfig(**twice),
    }
    for name, config in configs.items():
        pictures = 2 if config.method.trains_model else 1
        shape = (pictures, SDXL.latent_channels, *SDXL.latent_size(size, size))
        selects = SDXL.trained_weights[config.method.trains]
        needed = needed_memory(network, text, config, selects, shape, torch.float16, SDXL.activations)
        parts = (needed.weights, needed.gradients, needed.optimizer, needed.activations, unet + encoders + needed.total)
        widths = (9, 11, 11, 13, 13)
        print(f"{name:56}"[:56] + "".join(f"{part / 1e9:{w}.2f}" for part, w in zip(parts, widths, strict=True)))


if __name__ == "__main__":
    main()
