"""One small training in the real host, which several test modules and processes can repeat exactly."""

from __future__ import annotations

import functools
from typing import Any

import torch

from compinv_core.inversion_config import InversionConfig
from compinv_core.tuning_config import CustomDiffusionConfig, DreamBoothConfig

from . import checkpoints, host

SIZE = 64
Loaded = tuple[Any, Any, Any]


def photos() -> torch.Tensor:
    """Return two fixed noise pictures (2, 64, 64, 3)."""
    return torch.rand(2, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))


def short_config(**settings: Any) -> InversionConfig:
    """Return settings of a training of seconds."""
    return InversionConfig(**{"name": "my-cat", "superclass": "cat", "batch_size": 2, "save_every": 1, **settings})


def short_tuning(method: str, **settings: Any) -> CustomDiffusionConfig | DreamBoothConfig:
    """Return settings of a tuning of seconds, "custom_diffusion" or "dreambooth", with rates that show in few steps."""
    kind = {"custom_diffusion": CustomDiffusionConfig, "dreambooth": DreamBoothConfig}[method]
    short = {
        "name": "my-cat", "superclass": "cat", "steps": 2, "batch_size": 1, "save_every": 1, "num_class_images": 2,
        "learning_rate": 1e-3,
    }  # fmt: skip
    return kind(**{**short, **settings})


def class_pictures() -> torch.Tensor:
    """Return two fixed noise pictures (2, 64, 64, 3), other than the photos."""
    return torch.rand(2, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(7))


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


def tune(loaded: Loaded, config: CustomDiffusionConfig | DreamBoothConfig, **options: Any) -> Any:
    """Call the method's function in inference mode, as the executor does, with given class pictures."""
    from compinv_core.host.tuning import train_custom_diffusion, train_dreambooth

    call: Any = train_dreambooth if isinstance(config, DreamBoothConfig) else train_custom_diffusion
    options.setdefault("class_images", class_pictures())
    with torch.inference_mode():
        return call(*loaded, options.pop("images", photos()), config, **options)


def sample(model: Any, clip: Any) -> torch.Tensor:
    """Return latents (1, 4, 8, 8) of two steps of the host's sampler."""
    import comfy.sample

    with torch.inference_mode():
        positive = clip.encode_from_tokens_scheduled(clip.tokenize("a photo of a (cat:1.2)"))
        negative = clip.encode_from_tokens_scheduled(clip.tokenize(""))
        latent = torch.zeros(1, 4, 8, 8)
        noise = comfy.sample.prepare_noise(latent, 1)
        return comfy.sample.sample(
            model, noise, 2, 5.0, "euler", "normal", positive, negative, latent, disable_pbar=True
        ).clone()


def resampled(model: Any, prediction: str) -> Any:
    """Return the model as the host's ModelSamplingDiscrete node patches it."""
    import comfy.model_sampling

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, getattr(comfy.model_sampling, prediction)):
        pass

    patched = model.clone()
    patched.add_object_patch("model_sampling", Sampling(model.model.model_config))
    return patched


def anchored_run(loaded: Loaded, method: str, steps: int, save_every: int, **options: Any) -> Any:
    """Train with anchors that are coded anew every other step; Custom Diffusion learns two concepts at once."""
    from compinv_core.concept_images import ConceptImages
    from compinv_core.host.text.encoder import load_anchors

    anchors = load_anchors(loaded[1], ["dog", "bird", "teddy bear"])
    settings = {"steps": steps, "save_every": save_every, "recode_every": 2}
    if method == "textual_inversion":
        return train(loaded, short_config(**settings), anchors=anchors, **options)
    if method == "custom_diffusion":
        dog = (class_pictures().flip(1),)
        options["more_concepts"] = ConceptImages((photos().flip(1),), "my-dog", "dog", class_images=dog)
        settings |= {"batch_size": 2}
    return tune(loaded, short_tuning(method, **settings), anchors=anchors, **options)
