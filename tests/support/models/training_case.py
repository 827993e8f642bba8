"""One small training in the real host, which several test modules and processes can repeat exactly."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from compinv_core.basics.settings import read_settings, settings_of
from compinv_core.learning.concept import Concept
from compinv_core.learning.settings import InversionConfig
from compinv_core.learning.tuning_settings import CustomDiffusionConfig, DreamBoothConfig
from compinv_core.training.events import Event

from .. import host

SIZE = 64
Loaded = tuple[Any, Any, Any]


def photos() -> torch.Tensor:
    """Return two fixed noise pictures (2, 64, 64, 3)."""
    return torch.rand(2, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Case:
    """The settings of a training, and the words of its first concept."""

    config: InversionConfig
    words: dict[str, Any]


def a_case(kind: type[InversionConfig], **settings: Any) -> Case:
    """Part settings into those of a method and the words of a concept."""
    words = read_settings(Concept, settings)
    return Case(kind(**{name: value for name, value in settings.items() if name not in words}), words)


def short_config(**settings: Any) -> Case:
    """Return settings of a training of seconds."""
    return a_case(
        InversionConfig, **{"name": "my-cat", "superclass": "cat", "batch_size": 2, "save_every": 1, **settings}
    )


def short_tuning(method: str, **settings: Any) -> Case:
    """Return settings of a tuning of seconds, "custom_diffusion" or "dreambooth", with rates that show in few steps."""
    kind = {"custom_diffusion": CustomDiffusionConfig, "dreambooth": DreamBoothConfig}[method]
    short = {
        "name": "my-cat", "superclass": "cat", "steps": 2, "batch_size": 1, "save_every": 1, "num_class_images": 2,
        "learning_rate": 1e-3,
    }  # fmt: skip
    return a_case(kind, **{**short, **settings})


def class_pictures() -> torch.Tensor:
    """Return two fixed noise pictures (2, 64, 64, 3), other than the photos."""
    return torch.rand(2, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(7))


def default_tuning(method: str, new: bool, **settings: Any) -> Case:
    """Return the settings of an untouched node of "custom_diffusion" or "dreambooth", for two given class pictures.

    ``new`` takes what a new node shows; otherwise that of a graph from before an input was there.
    """
    kind = {"custom_diffusion": CustomDiffusionConfig, "dreambooth": DreamBoothConfig}[method]
    shown = {name: each.default for name, each in settings_of(kind, "hold").items()} if new else {}
    shown = read_settings(kind, shown)
    return a_case(kind, **{"name": "my-cat", "superclass": "cat", "num_class_images": 2, **shown, **settings})


@functools.cache
def load_as_executor(kind: str = "tiny") -> Loaded:
    """Return MODEL, CLIP and VAE of a random checkpoint, loaded as the executor does, in inference mode."""
    with torch.inference_mode():
        return host.load_anew(kind)


def train(
    loaded: Loaded,
    case: Case,
    images: Any = None,
    mask: Any = None,
    class_images: Any = None,
    more_concepts: Sequence[Concept] = (),
    anchors: Any = None,
    run_dir: Path | None = None,
    embedding_folder: Path | None = None,
    lora_path: Path | None = None,
    on_step: Callable[[int, Any], None] | None = None,
) -> Any:
    """Call `train_concepts` in inference mode, as the executor does."""
    from compinv_core.host.learning.train import Places, train_concepts

    def listen(event: Event) -> None:
        # The first event of a work only says where it begins.
        if on_step is not None and event.work == "training" and event.seconds_left is not None:
            on_step(event.step, event.losses)

    with torch.inference_mode():
        concept = Concept.to_learn(case.words, photos() if images is None else images, mask, class_images)
        places = Places(run_dir, embedding_folder, lora_path)
        return train_concepts(*loaded, case.config, (concept, *more_concepts), anchors, places, listen)


def tune(loaded: Loaded, case: Case, **options: Any) -> Any:
    """Call `train` with given class pictures."""
    options.setdefault("class_images", class_pictures())
    return train(loaded, case, **options)


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
    from compinv_core.host.text.encoder import load_anchors

    anchors = load_anchors(loaded[1], ["dog", "bird", "teddy bear"])
    settings = {"steps": steps, "save_every": save_every, "recode_every": 2}
    if method == "textual_inversion":
        return train(loaded, short_config(**settings), anchors=anchors, **options)
    if method == "custom_diffusion":
        dog = Concept("my-dog", "dog", photos=(photos().flip(1),), class_images=(class_pictures().flip(1),))
        options["more_concepts"] = (dog,)
        settings |= {"batch_size": 2}
    return tune(loaded, short_tuning(method, **settings), anchors=anchors, **options)
