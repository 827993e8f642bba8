"""The families beside Stable Diffusion 1 as the tests see them: random checkpoints, encoders, words and their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from .. import host
from .training_case import Loaded, load_as_executor


@dataclass(frozen=True)
class FamilyCase:
    """A family on its random checkpoint.

    Parameters
    ----------
    kind : str
        Of the checkpoint.
    name : str
        For people.
    widths : mapping of str to int
        Width of each encoder's word vectors, by its key in an embedding file, in the order in which they stand side by
        side in a word.
    pooled : str
        The encoder whose pooled output the diffusion model takes; empty where it takes none.
    """

    kind: str
    name: str
    widths: Mapping[str, int]
    pooled: str = ""

    @property
    def loaded(self) -> Loaded:
        """MODEL, CLIP and VAE, as the executor holds them; shared by all tests of a process."""
        return load_as_executor(self.kind)

    @property
    def width(self) -> int:
        """Of a word vector, all encoders side by side."""
        return sum(self.widths.values())

    def parts(self, vectors: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take vectors (k, D) apart into those of each encoder; they share their memory."""
        return dict(zip(self.widths, vectors.split(list(self.widths.values()), dim=-1), strict=True))

    def word(self, count: int = 2, seed: int = 0) -> torch.Tensor:
        """Random vectors (k, D) of the size that words have."""
        return torch.randn(count, self.width, generator=torch.Generator().manual_seed(seed)) * 0.0137

    def save_word(self, name: str, vectors: torch.Tensor) -> Path:
        """Write vectors (k, D) as other programs do, where the host finds them under `name`."""
        path = host.start() / "models" / "embeddings" / f"{name}.safetensors"
        save_file({key: part.contiguous() for key, part in self.parts(vectors).items()}, path)
        return path


FAMILIES = {
    "sdxl": FamilyCase("sdxl", "Stable Diffusion XL", {"clip_l": 768, "clip_g": 1280}, "clip_g"),
    "sd2": FamilyCase("sd2", "Stable Diffusion 2", {"clip_h": 1024}),
}


def stock_encoding(clip: Any, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Conditioning (1, 77 n, D) and pooled output (1, D) of a prompt, as CLIPTextEncode makes them."""
    with torch.inference_mode():
        ((context, options),) = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    return context, options["pooled_output"]


def two_texts(case: FamilyCase, text_g: str, text_l: str, height: int, width: int) -> list:
    """CONDITIONING of CLIPTextEncodeSDXL, with a text for each text encoder."""
    from comfy_extras.nodes_clip_sdxl import CLIPTextEncodeSDXL

    with torch.inference_mode():
        (conditioning,) = CLIPTextEncodeSDXL.execute(
            case.loaded[1], width, height, 0, 0, width, height, text_g, text_l
        ).args
    return conditioning


def is_encoding(encoding: Any, expected: tuple[torch.Tensor, torch.Tensor], case: FamilyCase) -> bool:
    """Whether a condition is what the host encodes, bit for bit; the pooled output where the family takes it."""
    if not case.pooled:
        return encoding.pooled is None and torch.equal(encoding.tokens, expected[0])
    return torch.equal(encoding.tokens, expected[0]) and torch.equal(encoding.pooled, expected[1])
