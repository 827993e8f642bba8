"""The kinds of diffusion model that the pack works with, each described once as the host holds it.

What differs from family to family is an entry here: latents, text encoders, extra conditioning, the blocks behind each
choice of `blocks`, and the weights that each method trains. Everything else asks the entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import comfy.model_sampling
import comfy.supported_models
import comfy.utils
import torch

from ..basics.errors import UserError
from ..semantic.widths import Widths
from ..training.memory import SD1_ACTIVATIONS, SDXL_ACTIVATIONS, Activations
from .unet_blocks import BLOCKS, BlockId

if TYPE_CHECKING:
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP
    from comfy.sd1_clip import SDClipModel, SDTokenizer

_WEIGHT = ".weight"


@dataclass(frozen=True)
class TextEncoder:
    """One text encoder of a family.

    Parameters
    ----------
    attribute : str
        Where the host's CLIP keeps its model and its tokenizer.
    embedding_key : str
        By which the host finds its vectors in an embedding file.
    width : int
        Of its input embeddings, and of its part of the encoded prompt, D.
    context_length : int
        Tokens of a chunk, start and end included.
    gives_pooled : bool
        Whether the UNet takes its pooled output, too.
    """

    attribute: str
    embedding_key: str
    width: int
    context_length: int = 77
    gives_pooled: bool = False

    def model(self, clip: CLIP) -> SDClipModel:
        """Return the host's text model in a CLIP."""
        return getattr(clip.cond_stage_model, self.attribute)

    def tokenizer(self, clip: CLIP) -> SDTokenizer:
        """Return the host's tokenizer in a CLIP; it has ``start_token``, ``end_token`` and ``pad_token``."""
        return getattr(clip.tokenizer, self.attribute)


@dataclass(frozen=True)
class Family:
    """One kind of diffusion model.

    Parameters
    ----------
    name : str
        For people.
    config : type
        The host's description of the model; those derived from it count, too, but for `others`.
    text_encoders : tuple of TextEncoder
        In the order in which their outputs are joined.
    block_choices : mapping of str to callable (UNetModel) -> list of BlockId
        The cross-attention blocks behind each choice of `blocks`, in the order of execution.
    trained_weights : mapping of str to callable (name of a parameter) -> bool
        Weights of the diffusion network by what a method trains: "nothing", "keys and values", "everything".
    activations : Activations
        What a step of training keeps.
    lora_names : {"diffusers", "network"}
        Whose names of the UNet's modules the most read LoRA files of the family have (those of kohya's sd-scripts):
        diffusers' for Stable Diffusion 1, the network's own for Stable Diffusion XL.
    size_conditioning : bool
        Whether the UNet is told the picture's size and crop; photos of one training may then have several sizes.
    most_pixels : int
        Of a picture that it was trained on; larger photos are scaled down. 0 takes photos as they are.
    spares_memory : bool
        Whether guidance computes the UNet's layers twice rather than keeping what is in between.
    others : tuple of type
        Descriptions derived from `config` of models that take something else beside the prompt.
    """

    name: str
    config: type
    text_encoders: tuple[TextEncoder, ...]
    block_choices: Mapping[str, Callable[[UNetModel], list[BlockId]]]
    trained_weights: Mapping[str, Callable[[str], bool]]
    activations: Activations
    lora_names: Literal["diffusers", "network"]
    size_conditioning: bool = False
    most_pixels: int = 0
    spares_memory: bool = False
    others: tuple[type, ...] = ()

    @classmethod
    def of(cls, node_name: str, model: ModelPatcher | None = None, clip: Any = ...) -> Family:
        """Recognise the family of a MODEL, a CLIP, or both, which then have to be of the same one; no CLIP is None.

        Parameters
        ----------
        node_name : str
            Opens the sentence.

        Raises
        ------
        UserError
            Naming what was found, what is supported, and which input to change.
        """
        fitting = [family for family in FAMILIES if model is None or family._has_model(model)]
        if not fitting:
            raise UserError(
                f"{node_name}: the model is {_model_kind(model)}, but only {supported('and')} models are supported; "
                f"connect `model` to a checkpoint of {supported('or')}."
            )
        if clip is ...:
            return fitting[0]
        readers = [family for family in FAMILIES if clip is not None and family._has_clip(clip)]
        if not readers:
            raise UserError(
                f"{node_name}: the text encoder is {clip and type(clip.cond_stage_model).__name__}, but only "
                f"{supported('and')} text encoders are supported; connect `clip` to the same checkpoint as `model`."
            )
        both = [family for family in fitting if family in readers]
        if not both:
            raise UserError(
                f"{node_name}: the model is {fitting[0].name} and the text encoder that of {readers[0].name}; connect "
                "`model` and `clip` to the same checkpoint."
            )
        return both[0]

    @property
    def widths(self) -> Widths:
        """Width of each text encoder's part of a word's vectors."""
        return {encoder.embedding_key: encoder.width for encoder in self.text_encoders}

    @property
    def width(self) -> int:
        """Of a word's vectors, all text encoders side by side, D."""
        return sum(self.widths.values())

    @property
    def latent_channels(self) -> int:
        """Channels of a latent, C."""
        return self.config.latent_format.latent_channels

    @property
    def pixels_per_cell(self) -> int:
        """Pixels along the side of a latent cell."""
        return self.config.latent_format.spacial_downscale_ratio

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the cells (h, w) of a picture of so many pixels."""
        return height // self.pixels_per_cell, width // self.pixels_per_cell

    def whole_cells(self, height: int, width: int) -> tuple[int, int]:
        """Return the pixels (H, W) that are left of a picture when it is cropped to whole latent cells."""
        return height - height % self.pixels_per_cell, width - width % self.pixels_per_cell

    def blocks(self, unet: UNetModel, choice: str) -> tuple[BlockId, ...]:
        """Name the blocks with cross-attention that a choice stands for in this UNet.

        Raises
        ------
        UserError
            When the UNet has no cross-attention there.
        """
        chosen = self.block_choices[choice](unet)
        if not chosen:
            raise UserError(f"This model has no cross-attention in the blocks {choice!r}; choose other `blocks`.")
        return tuple(chosen)

    def lora_modules(self, unet_config: Mapping[str, Any], layers: Iterable[str]) -> dict[str, str]:
        """Return what LoRA files call layers of a UNet, by the layers' names in the network; see `lora_names`.

        `unet_config` is the host's description of the UNet.
        """
        names = {}
        if self.lora_names == "diffusers":
            pairs = comfy.utils.unet_to_diffusers(unet_config).items()
            names = {own.removesuffix(_WEIGHT): name.removesuffix(_WEIGHT) for name, own in pairs}
        return {layer: names.get(layer, layer) for layer in layers}

    def _has_model(self, model: ModelPatcher) -> bool:
        config = getattr(model.model, "model_config", None)
        return isinstance(config, self.config) and not isinstance(config, self.others)

    def _has_clip(self, clip: CLIP) -> bool:
        # One encoder is held under the name that `clip` says; several stand side by side, with no others of any kind.
        parts = (clip.cond_stage_model, clip.tokenizer)
        names = {encoder.attribute for encoder in self.text_encoders}
        alone = {getattr(part, "clip", None) for part in parts} == names
        together = {name for name, _ in clip.cond_stage_model.named_children()} == names
        return (alone if len(names) == 1 else together) and all(hasattr(part, name) for part in parts for name in names)


def text_encoders(clip: CLIP) -> tuple[TextEncoder, ...]:
    """Return the text encoders of a CLIP, in the order in which their outputs are joined."""
    return Family.of("The text encoder", clip=clip).text_encoders


def tokenizer_of(clip: CLIP) -> SDTokenizer:
    """Return the host's tokenizer of a CLIP; several text encoders share its vocabulary."""
    return text_encoders(clip)[0].tokenizer(clip)


def maker_of(width: int) -> str:
    """Return the name of the family with words, or parts of words, that are so wide; empty where there is none."""
    names = (family.name for family in FAMILIES if width in (*family.widths.values(), family.width))
    return next(names, "")


def predicts_velocity(sampling: Any) -> bool:
    """Tell v-prediction (True) from noise prediction (False), the two that can be trained.

    Raises
    ------
    UserError
        When the host's model sampling is of any other kind.
    """
    for kind in type(sampling).__mro__:
        if kind is comfy.model_sampling.V_PREDICTION:
            return True
        if kind is comfy.model_sampling.EPS:
            return False
        if kind.__module__ == comfy.model_sampling.__name__ and issubclass(kind, comfy.model_sampling.EPS):
            break
    raise UserError(
        "The model predicts neither noise nor velocity; remove the ModelSampling node before the training node, "
        f"or use a plain checkpoint of {supported('or')}."
    )


_TRAINED = {
    "nothing": lambda name: False,
    "keys and values": lambda name: name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")),
    "everything": lambda name: True,
}

SD1 = Family(
    "Stable Diffusion 1",
    comfy.supported_models.SD15,
    (TextEncoder("clip_l", "clip_l", 768),),
    BLOCKS,
    _TRAINED,
    SD1_ACTIVATIONS,
    "diffusers",
)
SD2 = Family(
    "Stable Diffusion 2",
    comfy.supported_models.SD20,
    (TextEncoder("clip_h", "clip_h", 1024),),
    BLOCKS,
    _TRAINED,
    SD1_ACTIVATIONS,
    "diffusers",
    others=(comfy.supported_models.SD21UnclipL, comfy.supported_models.SD21UnclipH, comfy.supported_models.LotusD),
)
SDXL = Family(
    "Stable Diffusion XL",
    comfy.supported_models.SDXL,
    (TextEncoder("clip_l", "clip_l", 768), TextEncoder("clip_g", "clip_g", 1280, gives_pooled=True)),
    BLOCKS,
    _TRAINED,
    SDXL_ACTIVATIONS,
    "network",
    size_conditioning=True,
    most_pixels=1024 * 1024,
    spares_memory=True,
)
FAMILIES = (SD1, SD2, SDXL)


def supported(conjunction: str) -> str:
    """Return the names of the families, for a sentence."""
    *others, last = (family.name for family in FAMILIES)
    return f"{', '.join(others)} {conjunction} {last}"


def _model_kind(model: ModelPatcher | None) -> str:
    inner: Any = getattr(model, "model", None)
    config = getattr(inner, "model_config", None)
    return type(config).__name__ if config is not None else type(inner).__name__


def inference_type(model: ModelPatcher) -> torch.dtype:
    """Return the type that a model computes in, whatever its file holds."""
    return model.model.get_dtype_inference()
