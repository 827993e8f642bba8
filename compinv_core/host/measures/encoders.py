"""The networks that measure pictures: folders of the person's, those of the hub, and the host's CLIP Vision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...basics.content import ByContent
from ...basics.errors import UserError, quoted
from ...measures.encoder_folder import (
    CLIP_KINDS,
    CONFIG_FILE,
    LOOK_KINDS,
    OWN_FOLDER,
    PICKLED_WEIGHTS,
    PROCESSOR_FILE,
    SAFE_WEIGHTS,
    TOKENIZER_FILES,
    kind_of,
)
from ...measures.encoders import TransformersEncoder, load_clip, load_look
from ...measures.evaluation import NODE_NAME
from ..hub import fetch
from ..managed import managed_by_host

NO_CLIP, NO_LOOK = "choose a CLIP", "none"
"""What a fresh node is set to, so that nothing is downloaded unasked."""
HUB_CLIPS = ("openai/clip-vit-base-patch32", "openai/clip-vit-large-patch14")
"""Downloaded when they are first used (605 MB and 1.7 GB); the first is the paper's."""
HUB_LOOKS = ("facebook/dino-vits16", "facebook/dinov2-small")
"""Likewise (about 90 MB each); the first is DreamBooth's."""
_FILES = (CONFIG_FILE, PROCESSOR_FILE, (SAFE_WEIGHTS, PICKLED_WEIGHTS))


@dataclass(frozen=True, eq=False)
class ManagedEncoder(ByContent):
    """An encoder whose network the host moves to its device when it is used; a `measures.encoders.TextImageEncoder`."""

    encoder: TransformersEncoder
    _patcher: ModelPatcher = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_patcher", managed_by_host(self.encoder.network))

    @property
    def name(self) -> str:
        """For reports."""
        return self.encoder.name

    def encode_images(self, images: Tensor) -> Tensor:
        """See `measures.encoders.ImageEncoder.encode_images`; stops where the person asks for it."""
        self._load()
        return self.encoder.encode_images(_checked(images))

    def encode_text(self, text: str) -> Tensor:
        """See `measures.encoders.TextImageEncoder.encode_text`."""
        self._load()
        return self.encoder.encode_text(text)

    def _load(self) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        comfy.model_management.load_models_gpu([self._patcher], force_full_load=True)


@dataclass(frozen=True, eq=False)
class HostVision:
    """What the host's Load CLIP Vision has loaded, a CLIP or a DINOv2; a `measures.encoders.ImageEncoder`."""

    vision: Any
    name: str = "CLIP Vision of the graph"

    def encode_images(self, images: Tensor) -> Tensor:
        """See `measures.encoders.ImageEncoder.encode_images`."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        return self.vision.encode_image(_checked(images))["image_embeds"].float().cpu()


def clip_names() -> list[str]:
    """Return what can be chosen as `clip_model`: `NO_CLIP`, the person's own folders, and `HUB_CLIPS`."""
    return [NO_CLIP, *_own_names(CLIP_KINDS, HUB_CLIPS), *HUB_CLIPS]


def look_names() -> list[str]:
    """Return what can be chosen as `image_model`: `NO_LOOK`, the person's own folders, and `HUB_LOOKS`."""
    return [NO_LOOK, *_own_names(LOOK_KINDS, HUB_LOOKS), *HUB_LOOKS]


def chosen_clip(name: str) -> ManagedEncoder:
    """Load a CLIP by one of `clip_names`, or the name of any other folder in ``models/compinv/encoders``.

    Raises
    ------
    UserError
        When none is chosen, or it is missing, broken, or no CLIP.
    """
    if name == NO_CLIP:
        raise UserError(
            f"{NODE_NAME} has no CLIP yet; choose one in `clip_model` (those named openai are downloaded when they are "
            f"first used), or put a folder of transformers into models/{OWN_FOLDER}."
        )
    return _chosen(name, HUB_CLIPS, (*_FILES, *TOKENIZER_FILES), load_clip)


def chosen_look(name: str) -> ManagedEncoder | None:
    """The same for `look_names`; None for `NO_LOOK`."""
    return None if name == NO_LOOK else _chosen(name, HUB_LOOKS, _FILES, load_look)


def encoder_fingerprint(name: str) -> list[tuple[str, int, int]]:
    """Return what changes when the files of an encoder do, for the host's cache; empty where there is none."""
    try:
        folder = _models() / _folder_name(name)
    except UserError:
        return []
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(folder.glob("*.*"))]


def _chosen(
    name: str, hub: tuple[str, ...], files: tuple, load: Callable[[Path, str], TransformersEncoder]
) -> ManagedEncoder:
    folder = _models() / _folder_name(name)
    if name in hub:
        fetch(name, files, folder)
    elif not folder.is_dir():
        raise UserError(
            f"{NODE_NAME}: there is no folder {quoted(name)} in models/{OWN_FOLDER}; choose one that is there, or put "
            "it there."
        )
    # Weights made in inference mode could not be used by a node that leaves it.
    with torch.inference_mode(False), torch.no_grad():
        return ManagedEncoder(load(folder, name))


def _own_names(kinds: tuple[str, ...], hub: tuple[str, ...]) -> list[str]:
    downloaded = {_folder_name(name) for name in hub}
    folders = sorted(path for path in _models().glob("*") if path.is_dir())
    return [path.name for path in folders if path.name not in downloaded and kind_of(path) in kinds]


def _folder_name(name: str) -> str:
    flat = name.strip().replace("/", "--").replace("\\", "--")
    if flat in ("", ".", ".."):
        raise UserError(f"{NODE_NAME}: {quoted(name)} is no folder of models/{OWN_FOLDER}; choose one that is there.")
    return flat


def _models() -> Path:
    return Path(folder_paths.models_dir) / OWN_FOLDER


def _checked(images: Tensor) -> Tensor:
    if not torch.isfinite(images).all():
        raise UserError(f"{NODE_NAME}: a picture holds NaN or infinity; check the node that made it.")
    return images
