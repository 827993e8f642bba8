"""The miniature world on the real host, in process: learn concepts and paint prompts.

Everything runs through the pack's own functions and the host's own sampler; only the graph editor is left out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .checkpoint import CHECKPOINT_NAME, assemble
from .compact import leave_out_zeros, multiply_in_bfloat16, text_model_of
from .host import start_in_process
from .instances import Instance, photos
from .judging import Box
from .recipe import ANCHOR_WORDS, PAINTING, TEMPLATES, TEMPLATES_WITH_CLASS
from .scenes import SIDE


class Laboratory:
    """One host with the miniature model loaded, its zeros left out.

    Parameters
    ----------
    base
        Folder of the host's models and outputs; learned concepts are kept there and reused.
    bfloat16
        Multiply in bfloat16 in the diffusion network.
    """

    def __init__(self, base: Path, bfloat16: bool = False) -> None:
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
        if bfloat16:
            multiply_in_bfloat16(self.model.model.diffusion_model)

    @cached_property
    def anchors(self) -> Any:
        from compinv_core.host.text.encoder import load_anchors

        return load_anchors(self.clip, ANCHOR_WORDS)

    def learn(self, instance: Instance, name: str, masked: bool = False, **settings: Any) -> str:
        """Learn an own thing unless an embedding of this name is there; returns the word for prompts.

        ``settings`` are fields of ``InversionConfig``; anchor weight 0 is plain textual inversion.
        """
        from compinv_core.host.training import train_concept
        from compinv_core.inversion import InversionConfig

        file = self.base / "models" / "embeddings" / f"{name}.safetensors"
        if not file.exists():
            pictures, masks = _photo_tensors(instance)
            config = InversionConfig(name=name, superclass=instance.noun, templates=TEMPLATES, **settings)
            with torch.inference_mode():
                train_concept(
                    self.model,
                    self.clip,
                    self.vae,
                    pictures,
                    config,
                    anchors=self.anchors if config.anchor_weight else None,
                    mask=masks if masked else None,
                    run_dir=self.base / "output" / "compinv" / "runs" / name,
                    embedding_path=file,
                )
        return f"embedding:{name}"

    def tune(
        self,
        method: str,
        instances: Sequence[Instance],
        name: str,
        masked: bool = False,
        onto: Any = None,
        **settings: Any,
    ) -> tuple[Any, tuple[str, ...]]:
        """Learn own things by Custom Diffusion or DreamBooth, together where there are several, unless that is done.

        Parameters
        ----------
        method : {"Custom Diffusion", "DreamBooth"}
        onto
            A MODEL that an earlier call returned, to which the differences are added.
        settings
            Fields of the method's configuration; anchor weight 0 is the plain method.

        Returns
        -------
        model
            A clone of the host's MODEL with the trained weights.
        words
            For prompts, one for each of ``instances``.
        """
        from compinv_core.concept_images import ConceptImages
        from compinv_core.host.tuning import train_custom_diffusion, train_dreambooth
        from compinv_core.tuning_config import CustomDiffusionConfig, DreamBoothConfig

        train, make_config, kind = {
            "Custom Diffusion": (train_custom_diffusion, CustomDiffusionConfig, "diff"),
            "DreamBooth": (train_dreambooth, DreamBoothConfig, "set"),
        }[method]
        names = [f"{name}-{instance.name}" for instance in instances]
        file = self.base / "models" / "diffusion_models" / f"{name}.safetensors"
        if not file.exists():
            others, pictures = None, self.class_pictures(instances[0].noun)
            for instance, its_name in zip(instances[1:], names[1:], strict=True):
                images, masks = _photo_tensors(instance)
                shown = (masks,) if masked else None
                shown_class = (self.class_pictures(instance.noun),)
                others = ConceptImages(
                    (images,), its_name, instance.noun, masks=shown, previous=others, class_images=shown_class
                )
            config = make_config(
                name=names[0],
                superclass=instances[0].noun,
                templates=TEMPLATES_WITH_CLASS,
                num_class_images=len(pictures),
                **settings,
            )
            images, masks = _photo_tensors(instances[0])
            with torch.inference_mode():
                result = train(
                    self.model,
                    self.clip,
                    self.vae,
                    images,
                    config,
                    anchors=self.anchors if config.anchor_weight else None,
                    mask=masks if masked else None,
                    more_concepts=others,
                    class_images=pictures,
                    run_dir=self.base / "output" / "compinv" / "runs" / name,
                    embedding_folder=self.base / "models" / "embeddings",
                )
            trained = {key: patches[-1][1][1][0].contiguous() for key, patches in result.model.patches.items()}
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(trained, file.with_suffix(".part"))
            os.replace(file.with_suffix(".part"), file)
        model = (self.model if onto is None else onto).clone()
        model.add_patches({key: (kind, (tensor,)) for key, tensor in load_file(file).items()})
        return model, tuple(f"embedding:{its_name}" for its_name in names)

    def class_pictures(self, noun: str, count: int = 100) -> Tensor:
        """Pictures (count, SIDE, SIDE, 3) in [0, 1] of a class for the prior loss, painted once."""
        file = self.base / "input" / f"class-{noun}-{count}.safetensors"
        if not file.exists():
            painted = [self.paint(f"a photo of a {noun}", 40_000 + first, 10) for first in range(0, count, 10)]
            save_file({"pictures": torch.cat(painted).movedim(1, -1).contiguous()}, file.with_suffix(".part"))
            os.replace(file.with_suffix(".part"), file)
        return load_file(file)["pictures"]

    @torch.inference_mode()
    def paint(
        self,
        prompt: str,
        seed: int,
        count: int = 1,
        phrases: tuple[str, ...] = (),
        boxes: tuple[Box, ...] = (),
        guidance: dict[str, Any] | None = None,
        model: Any = None,
        **painting: Any,
    ) -> Tensor:
        """Pictures (count, 3, SIDE, SIDE) in [0, 1]; guided where phrases and their boxes are given.

        ``guidance`` are fields of ``GuidanceConfig``, ``painting`` overrides ``recipe.PAINTING``; ``model`` is one that
        `tune` returned, by default the miniature model as it is.
        """
        import nodes

        model = self.model if model is None else model
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

    def predicted_boxes(self, phrases: Sequence[str]) -> tuple[Box, ...]:
        """Boxes from the layout predictor that comes with the miniature world."""
        from compinv_core.host.layout_prediction import predict_layout
        from compinv_core.host.predictor_choice import MINIATURE_WORLD, chosen_predictor

        with torch.inference_mode():
            layout, _ = predict_layout(chosen_predictor(MINIATURE_WORLD), self.clip, tuple(phrases), SIDE, SIDE)
        return layout.boxes

    @torch.inference_mode()
    def restored(self, pictures: Tensor) -> Tensor:
        """Pictures (N, SIDE, SIDE, 3) in [0, 1] as the autoencoder shows them, (N, 3, SIDE, SIDE)."""
        return self.vae.decode(self.vae.encode(pictures)).movedim(-1, 1).clamp(0, 1).float().clone()

    def _encode(self, text: str) -> list:
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))


def _photo_tensors(instance: Instance) -> tuple[Tensor, Tensor]:
    """The photos (5, SIDE, SIDE, 3) in [0, 1] and their masks (5, SIDE, SIDE)."""
    pictures, masks = photos(instance)
    return torch.from_numpy(pictures).float().div(255), torch.from_numpy(masks)
