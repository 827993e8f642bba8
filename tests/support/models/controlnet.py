"""A ControlNet for the `tiny` checkpoint, loaded as the host loads one."""

from __future__ import annotations

from typing import Any

import torch

from ..checkpoints import SHARED_UNET, UNETS


def random_controlnet() -> Any:
    """A ControlNet for the tiny UNet, with weights that do something."""
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.ops

    skip = {"transformer_depth_output", "out_channels"}
    options = {key: value for key, value in {**SHARED_UNET, **UNETS["tiny"]}.items() if key not in skip}
    with torch.inference_mode(False), torch.random.fork_rng():
        torch.manual_seed(4)
        network = comfy.cldm.cldm.ControlNet(
            **{key: list(value) if isinstance(value, list) else value for key, value in options.items()},
            hint_channels=3,
            dtype=torch.float32,
            operations=comfy.ops.disable_weight_init,
        )
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
    device = torch.device("cpu")
    control = comfy.controlnet.ControlNet(network, load_device=device)
    return control.set_cond_hint(torch.rand(1, 3, 64, 64), 1.0, (0.0, 1.0))
