"""The host's progress bar, its stop button, and preview pictures of a training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import comfy.model_management
import comfy.sample
import comfy.utils
import torch
from PIL import Image

from .. import logger
from ..training.events import Event, Sink

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

_Item = TypeVar("_Item")

# Enough steps to recognise the subject; a preview must not cost more than a few training steps.
_PREVIEW_STEPS = 12
_PREVIEW_GUIDANCE = 6.0
_PREVIEW_PIXELS = 512


def stop_if_asked(*ignored: Any) -> None:
    """Raise the host's interruption when the person pressed stop.

    Called every step: the progress bar's own check is throttled and would lag by several steps.
    """
    comfy.model_management.throw_exception_if_processing_interrupted()


def progress_bar() -> Sink:
    """Return a listener that moves the node's progress bar, a new one for each work, and stops when asked."""
    bars: dict[str, Any] = {}

    def show(event: Event) -> None:
        stop_if_asked()
        if event.work not in bars:
            bars[event.work] = comfy.utils.ProgressBar(event.total)
        picture = None if event.picture is None else ("JPEG", event.picture, _PREVIEW_PIXELS)
        bars[event.work].update_absolute(event.step, event.total, picture)

    return show


def with_previews(every: int, paint: Callable[[], Image.Image | None], sink: Sink) -> Sink:
    """Return a listener that hands a training's events on to another, with a picture every so many steps."""

    def hand_on(event: Event) -> None:
        due = event.work == "training" and event.step > 0 and event.step % every == 0
        sink(replace(event, picture=paint()) if due else event)

    return hand_on


def with_progress(items: Collection[_Item]) -> Iterator[_Item]:
    """Yield items, moving the node's progress bar after each and stopping when the person pressed stop.

    Parameters
    ----------
    items : collection

    Yields
    ------
    item
    """
    bar = comfy.utils.ProgressBar(len(items))
    for number, item in enumerate(items):
        stop_if_asked(number)
        yield item
        bar.update_absolute(number + 1)


class TrainingProgress:
    """Moves the node's progress bar, with a preview now and then.

    Parameters
    ----------
    steps : int
        Of the whole training.
    preview_every : int
        Steps between previews; 0 for none.
    preview : callable, optional
        () -> PIL image, or None where there is none to be shown.
    """

    def __init__(
        self, steps: int, preview_every: int = 0, preview: Callable[[], Image.Image | None] | None = None
    ) -> None:
        self._bar = comfy.utils.ProgressBar(steps)
        self._steps, self._every, self._preview = steps, preview_every, preview

    def update(self, steps_done: int) -> None:
        """Show that `steps_done` steps are done.

        Parameters
        ----------
        steps_done : int
        """
        picture = None
        if self._preview is not None and self._every > 0 and steps_done % self._every == 0:
            picture = self._preview()
        self._bar.update_absolute(
            steps_done, self._steps, None if picture is None else ("JPEG", picture, _PREVIEW_PIXELS)
        )


class PreviewSampler:
    """Renders a prompt with the vectors learned so far, by the host's own sampler (Euler, 12 steps, CFG 6).

    Every preview starts from the same noise, so that they can be compared. The training's random numbers are not
    touched, and the networks in training stay where they are: without room for the autoencoder there is no preview.

    Parameters
    ----------
    model : ModelPatcher
    clip : CLIP
    vae : VAE
    latent_shape : tuple of int
        (channels, h, w)
    seed : int
    """

    def __init__(self, model: ModelPatcher, clip: CLIP, vae: VAE, latent_shape: tuple[int, ...], seed: int) -> None:
        self._model, self._vae, self._seed = model, vae, seed
        self._latent = torch.zeros((1, *latent_shape))
        self._told = False
        with torch.inference_mode():
            self._negative: Any = clip.encode_from_tokens_scheduled(clip.tokenize(""))

    def render(self, context: torch.Tensor) -> Image.Image | None:
        """Return a picture of the conditioning, or None where the device has no room for the autoencoder.

        Parameters
        ----------
        context : Tensor (1, 77, D)

        Returns
        -------
        PIL.Image.Image or None
        """
        if not self._has_room():
            if not self._told:
                logger.warning("No previews: the device has no room for the autoencoder beside the training.")
            self._told = True
            return None
        with torch.inference_mode():
            noise = comfy.sample.prepare_noise(self._latent, self._seed)
            samples = comfy.sample.sample(
                self._model,
                noise,
                _PREVIEW_STEPS,
                _PREVIEW_GUIDANCE,
                "euler",
                "normal",
                [[context.detach().cpu(), {}]],
                self._negative,
                self._latent,
                disable_pbar=True,
                seed=self._seed,
            )
            pixels = self._vae.decode(samples)[0]
            return Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().cpu().numpy())

    def _has_room(self) -> bool:
        """Tell whether the host would load the autoencoder without pushing out the networks in training."""
        management, vae = comfy.model_management, self._vae
        if management.DISABLE_SMART_MEMORY:
            return False
        decoding = vae.memory_used_decode(self._latent.shape, vae.vae_dtype) + management.extra_reserved_memory()
        loading = 1.1 * (vae.patcher.model_size() - vae.patcher.loaded_size())
        needed = loading + max(decoding, management.minimum_inference_memory())
        return needed <= management.get_free_memory(vae.patcher.load_device)
