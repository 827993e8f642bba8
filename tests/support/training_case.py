"""One small training in the real host, which several test modules and processes can repeat exactly."""

from __future__ import annotations

import functools
from typing import Any

import torch

from compinv_core.inversion_config import InversionConfig

from . import checkpoints, host

SIZE = 64
Loaded = tuple[Any, Any, Any]


def photos() -> torch.Tensor:
    """Return two fixed noise pictures (2, 64, 64, 3)."""
    return torch.rand(2, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))


def short_config(**settings: Any) -> InversionConfig:
    """Return settings of a training of seconds."""
    return InversionConfig(**{"name": "my-cat", "superclass": "cat", "batch_size": 2, "save_every": 1, **settings})


@functools.cache
def load_as_executor() -> Loaded:
    """Return MODEL, CLIP and VAE loaded as the executor does, in inference mode."""
    base = host.start()
    import comfy.sd

    with torch.inference_mode():
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
            str(checkpoints.build("tiny")), embedding_directory=[str(base / "models" / "embeddings")]
        )
    return model, clip, vae


def train(loaded: Loaded, config: InversionConfig, **options: Any) -> Any:
    """Call `train_concept` in inference mode, as the executor does."""
    from compinv_core.host.training import train_concept

    with torch.inference_mode():
        return train_concept(*loaded, options.pop("images", photos()), config, **options)


def resampled(model: Any, prediction: str) -> Any:
    """Return the model as the host's ModelSamplingDiscrete node patches it."""
    import comfy.model_sampling

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, getattr(comfy.model_sampling, prediction)):
        pass

    patched = model.clone()
    patched.add_object_patch("model_sampling", Sampling(model.model.model_config))
    return patched
