"""The miniature world on the real host, in process: learn concepts and paint prompts.

Everything runs through the pack's own functions and the host's own sampler; only the graph editor is left out.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .checkpoint import CHECKPOINT_NAME, assemble
from .compact import leave_out_zeros, text_model_of
from .host import start_in_process
from .instances import Instance, photos
from .judging import Box
from .recipe import ANCHOR_WORDS, PAINTING, TEMPLATES
from .scenes import SIDE


class Laboratory:
    """One host with the miniature model loaded, its zeros left out.

    Parameters
    ----------
    base
        Folder of the host's models and outputs; learned concepts are kept there and reused.
    """

    def __init__(self, base: Path) -> None:
        self.base = base.resolve()
        start_in_process(self.base)
        import comfy.sd
        import comfy.utils

        comfy.utils.set_progress_bar_enabled(False)
        checkpoint = assemble(self.base / "models" / "checkpoints" / CHECKPOINT_NAME)
        with torch.inference_mode():
            self.model, self.clip, self.vae, _ = comfy.sd.load_checkpoint_guess_config(
                str(checkpoint), embedding_directory=[str(self.base / "models" / "embeddings")]
            )
        leave_out_zeros(self.model.model.diffusion_model, text_model_of(self.clip))

    @cached_property
    def anchors(self) -> Any:
        from compinv_core.host.text_encoder import load_anchors

        return load_anchors(self.clip, ANCHOR_WORDS)

    def learn(self, instance: Instance, name: str, masked: bool = False, **settings: Any) -> str:
        """Learn an own thing unless an embedding of this name is there; returns the word for prompts.

        ``settings`` are fields of ``InversionConfig``; anchor weight 0 is plain textual inversion.
        """
        from compinv_core.host.training import train_concept
        from compinv_core.inversion import InversionConfig

        file = self.base / "models" / "embeddings" / f"{name}.safetensors"
        if not file.exists():
            pictures, masks = photos(instance)
            config = InversionConfig(name=name, superclass=instance.noun, templates=TEMPLATES, **settings)
            with torch.inference_mode():
                train_concept(
                    self.model,
                    self.clip,
                    self.vae,
                    torch.from_numpy(pictures).float().div(255),
                    config,
                    anchors=self.anchors if config.anchor_weight else None,
                    mask=torch.from_numpy(masks) if masked else None,
                    run_dir=self.base / "output" / "compinv" / "runs" / name,
                    embedding_path=file,
                )
        return f"embedding:{name}"

    @torch.inference_mode()
    def paint(
        self,
        prompt: str,
        seed: int,
        count: int = 1,
        phrases: tuple[str, ...] = (),
        boxes: tuple[Box, ...] = (),
        guidance: dict[str, Any] | None = None,
        **painting: Any,
    ) -> Tensor:
        """Pictures (count, 3, SIDE, SIDE) in [0, 1]; guided where phrases and their boxes are given.

        ``guidance`` are fields of ``GuidanceConfig``, ``painting`` overrides ``recipe.PAINTING``.
        """
        import nodes

        model = self.model
        if phrases:
            from compinv_core.guidance import GuidanceConfig
            from compinv_core.host.sampling import apply_layout_guidance
            from compinv_core.layout import Layout

            layout = Layout(phrases=phrases, boxes=boxes, width=SIDE, height=SIDE)
            model, positive = apply_layout_guidance(
                model, self.clip, prompt, layout, GuidanceConfig(**(guidance or {}))
            )
        else:
            positive = self._encode(prompt)
        p = PAINTING | painting
        latent = {"samples": torch.zeros(count, 4, SIDE // 8, SIDE // 8)}
        samples = nodes.common_ksampler(
            model, seed, p["steps"], p["cfg"], p["sampler_name"], p["scheduler"], positive, self._encode(""), latent
        )
        return self.vae.decode(samples[0]["samples"]).movedim(-1, 1).clamp(0, 1).float().clone()

    @torch.inference_mode()
    def restored(self, pictures: Tensor) -> Tensor:
        """Pictures (N, SIDE, SIDE, 3) in [0, 1] as the autoencoder shows them, (N, 3, SIDE, SIDE)."""
        return self.vae.decode(self.vae.encode(pictures)).movedim(-1, 1).clamp(0, 1).float().clone()

    def _encode(self, text: str) -> list:
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))
