"""Opening the host's MODEL and CLIP for gradients, and leaving them as they were.

The executor runs nodes in inference mode and may have loaded the weights in it, stored in another precision than is
computed with, or as views that can be evicted. A session makes all of that differentiable for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import comfy.model_management
import torch

from ...basics.errors import UserError
from ...learning.condition import Condition
from ...spatial.attention import BlockAttention
from ...training.low_rank import LowRank
from ..checkpointing import gradient_checkpointing
from ..computing import held_weights, in_training, resident
from ..family import Family, inference_type, predicts_velocity
from ..inference import normalise_parameters, pytorch_attention_override
from ..sampling.capture import AttentionCapture, CaptureComplete
from ..unet_blocks import BlockId
from .memory import step_activations
from .trained_weights import Weights, trained_weights

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP


# The host's key of LoRAs that are added to a layer's output.
_BYPASS = "bypass_lora"


class DiffusionSession:
    """The diffusion model while it is open for gradients; made by `training_session`.

    Training sees the model's weights, LoRA patches included, and its noise schedule and prediction type, but none of
    the patches that act on sampling only (attention patches, guidance).

    Parameters
    ----------
    model : ModelPatcher
        Loaded.
    weights : TrainedWeights or LowRankWeights
        What is trained of it.
    """

    def __init__(self, model: ModelPatcher, weights: Weights) -> None:
        self.model, self.weights = model, weights
        self._network = model.model.diffusion_model
        self._sampling: Any = model.get_model_object("model_sampling")
        self._dtype = inference_type(model)
        self._velocity = predicts_velocity(self._sampling)
        self._pixels_per_cell: int = model.model.latent_format.spacial_downscale_ratio
        self.device = model.load_device
        self._sigmas = self._sampling.sigmas.detach().clone().to(self.device)
        self._timesteps = self._sampling.timestep(self._sigmas).float()

    @property
    def num_timesteps(self) -> int:
        """Length of the noise schedule."""
        return len(self._sigmas)

    @property
    def computes_in_float16(self) -> bool:
        """Whether small gradients need a loss scale."""
        return self._dtype == torch.float16

    def denoise(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, condition: Condition
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise the latents to the timesteps and return the model's prediction and what it should have been.

        Parameters
        ----------
        latents, noise : Tensor (B, C, h, w), float32
            Latents as the model takes them (scaled).
        timesteps : Tensor (B,), int64
            Positions in the noise schedule.
        condition : Condition
            Of B pictures.

        Returns
        -------
        prediction : Tensor (B, C, h, w), in the model's precision
        target : Tensor (B, C, h, w), float32
            The noise, or the velocity ``(noise - sigma x0) / sqrt(1 + sigma^2)`` for v-prediction models.
        """
        prediction = self._evaluate(latents, noise, timesteps, condition, {})
        if not self._velocity:
            return prediction, noise
        sigma = self._sigmas[timesteps].view(-1, 1, 1, 1)
        return prediction, (noise - sigma * latents) / (1 + sigma.square()).sqrt()

    def attention(
        self, noise: torch.Tensor, timesteps: torch.Tensor, condition: Condition, blocks: Sequence[BlockId]
    ) -> list[BlockAttention]:
        """Return what the model looks at in pure noise (B, C, h, w), in these blocks; leaves the network after them."""
        capture = AttentionCapture(self._network, blocks)
        with suppress(CaptureComplete):
            self._evaluate(
                torch.zeros_like(noise), noise, timesteps, condition, {"patches": {"attn2_patch": [capture]}}
            )
        return capture.recorded

    def blocks(self, family: Family, choice: str) -> tuple[BlockId, ...]:
        """Name the blocks that a choice stands for."""
        return family.blocks(self._network, choice)

    def _evaluate(
        self,
        latents: torch.Tensor,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
        condition: Condition,
        options: dict[str, Any],
    ) -> torch.Tensor:
        self.weights.place_casts()
        sigma = self._sigmas[timesteps]
        noisy = self._sampling.noise_scaling(sigma, noise, latents)
        return self._network(
            self._sampling.calculate_input(sigma, noisy).to(self._dtype),
            self._timesteps[timesteps],
            context=condition.tokens.to(self._dtype),
            y=self._size_conditioning(condition, latents),
            transformer_options={"optimized_attention_override": pytorch_attention_override, **options},
        )

    def _size_conditioning(self, condition: Condition, latents: torch.Tensor) -> torch.Tensor | None:
        """Return what the host tells the network beside the prompt (B, P), None where that is nothing.

        The pictures are as large as the latents; where they have frames, they were cut from a larger one.
        """
        if condition.pooled is None:
            return None
        height, width = (side * self._pixels_per_cell for side in latents.shape[-2:])
        frames = condition.frames
        rows = [[height, width, 0, 0]] * len(condition) if frames is None else frames.tolist()
        told = [
            self.model.model.encode_adm(
                pooled_output=pooled, height=whole_height, width=whole_width, crop_h=top, crop_w=left,
                target_height=height, target_width=width,
            )
            for pooled, (whole_height, whole_width, top, left) in zip(condition.pooled.split(1), rows, strict=True)
        ]  # fmt: skip
        return torch.cat(told).to(self.device, self._dtype)


def check_trainable(model: ModelPatcher) -> None:
    """Refuse models that a concept cannot be trained on, before any long work.

    Raises
    ------
    UserError
        For inpainting models, which need more than latents as input, unknown prediction types, and LoRAs beside the
        weights, whose tensors autograd refuses.
    """
    if _BYPASS in model.injections:
        raise UserError(
            "The model has a LoRA from Load LoRA (Bypass), through which it cannot be trained; "
            "use Load LoRA in its place."
        )
    if model.model.concat_keys or model.model.diffusion_model.in_channels != model.model.latent_format.latent_channels:
        raise UserError(
            "The model is an inpainting or edit model; train on the plain checkpoint and use the embedding with both."
        )
    predicts_velocity(model.get_model_object("model_sampling"))


@contextmanager
def training_session(
    model: ModelPatcher,
    clip: CLIP,
    latent_shape: tuple[int, ...],
    trains_weight: Callable[[str], bool] = lambda name: False,
    checkpointing: bool = False,
    low_rank: LowRank | None = None,
) -> Iterator[tuple[DiffusionSession, CLIP]]:
    """Open model and text encoder for gradients; afterwards the graph's objects give the same bits as before.

    Parameters
    ----------
    latent_shape : tuple of int
        (batch, channels, h, w) of a step, for which the host makes room.
    trains_weight : callable (name of a parameter) -> bool
        Which weights of the diffusion network are trained; none by default.
    checkpointing : bool
        Compute the diffusion network's activations twice instead of keeping them.
    low_rank : LowRank, optional
        Train factors of those weights instead of the weights themselves.

    Yields
    ------
    session : DiffusionSession
    clip : CLIP
        The text encoder to use in the session; not always the object passed in.
    """
    with torch.inference_mode(False), torch.enable_grad():
        model, clip = resident(model), _resident_clip(clip)
        memory = int(step_activations(model, latent_shape, checkpointing))
        comfy.model_management.load_models_gpu([model, clip.patcher], memory_required=memory, force_full_load=True)
        normalise_parameters(model.model)
        normalise_parameters(clip.cond_stage_model)
        network, dtype = model.model.diffusion_model, inference_type(model)
        with (
            in_training(),
            trained_weights(network, trains_weight, dtype, low_rank) as weights,
            held_weights(network, dtype, model.load_device),
            held_weights(clip.cond_stage_model, torch.float32, clip.patcher.load_device),
            gradient_checkpointing(network, checkpointing),
        ):
            yield DiffusionSession(model, weights), clip


def _resident_clip(clip: CLIP) -> CLIP:
    patcher = resident(clip.patcher)
    if patcher is clip.patcher:
        return clip
    # The host's own clone(disable_dynamic=True) would keep the dynamic network beside the new patcher.
    clip = clip.clone()
    clip.patcher, clip.cond_stage_model = patcher, patcher.model
    return clip
