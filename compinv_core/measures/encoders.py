"""Networks that look at pictures, through `transformers`: CLIP, which also reads the prompt, and DINO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..basics.content import ByContent
from ..basics.errors import UserError, quoted
from ..detectors.bounds import MemoryBudget, check_sides
from .encoder_folder import CLIP_KINDS, CURE, LOOK_KINDS, TOKENIZER_FILES, EncoderFolder, read_encoder

_BATCH = 16
_TRIAL = torch.zeros(1, 16, 24, 3)
_PROCESSORS = {
    f"{name}{ending}": f"{name}ImageProcessor"
    for name in ("CLIP", "ViT", "Bit")
    for ending in ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
}
_OWN_PROCESSOR = {"clip": "CLIPImageProcessor", "vit": "ViTImageProcessor", "dinov2": "BitImageProcessor"}
_IGNORED = {"auto_map", "processor_class", "image_processor_type", "feature_extractor_type"}


class ImageEncoder(Protocol):
    """Looks at pictures.

    Attributes
    ----------
    name : str
        For reports: numbers of different networks are never mixed.
    """

    @property
    def name(self) -> str: ...

    def encode_images(self, images: Tensor) -> Tensor:
        """Features of pictures.

        Parameters
        ----------
        images : Tensor (B, H, W, 3)
            In [0, 1], as the host's IMAGE.

        Returns
        -------
        Tensor (B, D), float32, CPU
        """
        ...


class TextImageEncoder(ImageEncoder, Protocol):
    """Looks at pictures and reads prompts, in features that can be compared."""

    def encode_text(self, text: str) -> Tensor:
        """Features of a prompt, (D,), float32, CPU; what is longer than the network reads is cut."""
        ...


@dataclass(frozen=True, eq=False)
class TransformersEncoder(ByContent):
    """A network of `transformers` with its preprocessing; an `ImageEncoder`, and with a tokenizer a `TextImageEncoder`.

    Parameters
    ----------
    network : Module
        Its own device is used.
    processor : callable
        The image processor of `transformers`.
    tokenizer : callable, optional
        Where the network is a CLIP.
    """

    name: str
    network: nn.Module
    processor: Any = field(compare=False)
    tokenizer: Any = field(default=None, compare=False)

    @torch.inference_mode()
    def encode_images(self, images: Tensor) -> Tensor:
        """See `ImageEncoder.encode_images`; pictures count as their files would, in 256 steps."""
        parts = []
        network: Any = self.network
        for batch in images.split(_BATCH):
            pixels = _prepared(self.processor, batch).to(next(network.parameters()).device)
            if self.tokenizer is None:
                # The class token: what DINO's authors, and DreamBooth's after them, compare.
                features = network(pixel_values=pixels).last_hidden_state[:, 0]
            else:
                features = network.visual_projection(network.vision_model(pixel_values=pixels).pooler_output)
            parts.append(features.float().cpu())
        return torch.cat(parts)

    @torch.inference_mode()
    def encode_text(self, text: str) -> Tensor:
        """See `TextImageEncoder.encode_text`."""
        network: Any = self.network
        longest = network.config.text_config.max_position_embeddings
        tokens = self.tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
        ids = tokens["input_ids"].to(next(network.parameters()).device)
        return network.text_projection(network.text_model(input_ids=ids).pooler_output)[0].float().cpu()


def load_clip(folder: Path, name: str) -> TransformersEncoder:
    """Load a CLIP from a folder as `transformers` saves it; `name` is for reports. Nothing is downloaded.

    Raises
    ------
    UserError
        When the folder holds no CLIP, or `transformers` is missing.
    """
    return _loaded(read_encoder(folder, CLIP_KINDS), name)


def load_look(folder: Path, name: str) -> TransformersEncoder:
    """The same for a network that only looks: DINO (a ViT) or DINOv2."""
    return _loaded(read_encoder(folder, LOOK_KINDS), name)


def _loaded(found: EncoderFolder, name: str) -> TransformersEncoder:
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            f"Measuring likeness needs the package transformers, which cannot be imported ({error}); "
            "install it with: pip install transformers."
        ) from error
    prefix = {"clip": "CLIP", "vit": "ViT", "dinov2": "Dinov2"}[found.kind]
    more: dict[str, Any] = {"add_pooling_layer": False} if found.kind == "vit" else {}
    try:
        config = getattr(transformers, f"{prefix}Config").from_dict(found.settings)
        with MemoryBudget(found.weights):
            network, loading = getattr(transformers, f"{prefix}Model").from_pretrained(
                None, config=config, state_dict=found.weights, output_loading_info=True, **more
            )
    except Exception as error:  # settings that do not fit may fail anywhere in the library
        raise UserError(
            f"The network in {quoted(found.folder.name)} cannot be built by this version of transformers; {CURE}."
        ) from error
    if loading["missing_keys"]:
        raise UserError(
            f"The weights in {quoted(found.folder.name)} lack {len(loading['missing_keys'])} tensors of a {prefix}; "
            f"{CURE}."
        )
    tokenizer = _tokenizer(found.folder) if found.kind in CLIP_KINDS else None
    processor = _processor(transformers, found)
    encoder = TransformersEncoder(name, network.float().eval().requires_grad_(False), processor, tokenizer)
    try:
        encoder.encode_images(_TRIAL)
    except Exception as error:  # settings that do not fit may fail anywhere in the library
        raise UserError(
            f"The preprocessing of {quoted(found.folder.name)} does not go with its network ({error}); {CURE}."
        ) from error
    return encoder


def _processor(transformers: Any, found: EncoderFolder) -> Any:
    """The preprocessing with the settings that were read, tried on a small picture."""
    settings: Mapping[str, Any] = found.processor
    kind = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    known = _OWN_PROCESSOR[found.kind] if kind is None else _PROCESSORS.get(str(kind))
    if known is None:
        raise UserError(
            f"The preprocessing of {quoted(found.folder.name)} is {quoted(kind)}, which is not one of CLIP, ViT and "
            f"DINOv2; {CURE}."
        )
    try:
        processor = getattr(transformers, known).from_dict({k: v for k, v in settings.items() if k not in _IGNORED})
        check_sides(processor)
        pixels = _prepared(processor, _TRIAL)
        side = found.settings.get("vision_config", found.settings).get("image_size", 224)
        if pixels.shape[:2] != (1, 3) or (found.kind != "dinov2" and pixels.shape[2:] != (side, side)):
            raise ValueError(f"pictures of {tuple(pixels.shape)}")
    except Exception as error:  # settings that do not fit may fail anywhere in the library
        raise UserError(
            f"The preprocessing of {quoted(found.folder.name)} makes no sense ({error}); {CURE}."
        ) from error
    return processor


def _tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    missing = [name for name in TOKENIZER_FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(f"The CLIP in {quoted(folder.name)} has no {' and no '.join(missing)}; {CURE}.")
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a broken vocabulary may fail anywhere in the library
        raise UserError(f"The vocabulary of {quoted(folder.name)} is not readable ({error}); {CURE}.") from error


def _prepared(processor: Any, images: Tensor) -> Tensor:
    """Pictures (B, H, W, 3) in [0, 1] as the network takes them, (B, 3, h, w)."""
    pictures = [
        Image.fromarray(np.uint8(picture)) for picture in (images.float().clamp(0, 1) * 255).round().cpu().numpy()
    ]
    return processor(images=pictures, return_tensors="pt")["pixel_values"]
