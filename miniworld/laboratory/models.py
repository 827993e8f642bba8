"""The miniature world on the real host, in process: learn concepts and paint prompts.

Everything runs through the pack's own functions and the host's own sampler; only the graph editor is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from compinv_core.basics.tensor_file import write_tensors

from ..host import start_in_process
from ..networks.checkpoint import CHECKPOINT_NAME, assemble
from ..networks.compact import leave_out_zeros, multiply_in_bfloat16, text_model_of
from ..world.instances import Instance, photos
from ..world.scenes import SIDE
from .judging import Box
from .recipe import ANCHOR_WORDS, PAINTING, TEMPLATES, TEMPLATES_WITH_CLASS


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

        ``settings`` are fields of ``InversionConfig`` and ``num_vectors``; anchor weight 0 is plain textual inversion.
        """
        from compinv_core.learning.settings import InversionConfig

        if not (self.base / "models" / "embeddings" / f"{name}.safetensors").exists():
            vectors = settings.pop("num_vectors", 1)
            config = InversionConfig(templates=TEMPLATES, **settings)
            self._train(config, [_concept(instance, name, masked, num_vectors=vectors)], name)
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
        """Learn own things by a method that trains the model, together where there are several, unless that is done.

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
        from compinv_core.learning.tuning_settings import CustomDiffusionConfig, DreamBoothConfig

        kind = {kind.method.name: kind for kind in (CustomDiffusionConfig, DreamBoothConfig)}[method]
        names = [f"{name}-{instance.name}" for instance in instances]
        file = self.base / "models" / "diffusion_models" / f"{name}.safetensors"
        if not file.exists():
            concepts = [
                _concept(instance, its_name, masked, class_images=(self.class_pictures(instance.noun),))
                for instance, its_name in zip(instances, names, strict=True)
            ]
            count = len(concepts[0].class_images[0])
            config = kind(templates=TEMPLATES_WITH_CLASS, num_class_images=count, **settings)
            result = self._train(config, concepts, name)
            trained = {key: patches[-1][1][1][0].contiguous() for key, patches in result.model.patches.items()}
            write_tensors(file, trained, {})
        model = (self.model if onto is None else onto).clone()
        patch = {"differences": "diff", "values": "set"}[kind.method.outcome]
        model.add_patches({key: (patch, (tensor,)) for key, tensor in load_file(file).items()})
        return model, tuple(f"embedding:{its_name}" for its_name in names)

    def _train(self, config: Any, concepts: list[Any], name: str) -> Any:
        from compinv_core.host.learning.train import Places, train_concepts

        models = (self.model, self.clip, self.vae)
        places = Places(self.base / "output" / "compinv" / "runs" / name, self.base / "models" / "embeddings")
        with torch.inference_mode():
            return train_concepts(*models, config, concepts, self.anchors if config.anchor_weight else None, places)

    def class_pictures(self, noun: str, count: int = 100) -> Tensor:
        """Pictures (count, SIDE, SIDE, 3) in [0, 1] of a class for the prior loss, painted once."""
        file = self.base / "input" / f"class-{noun}-{count}.safetensors"
        if not file.exists():
            painted = [self.paint(f"a photo of a {noun}", 40_000 + first, 10) for first in range(0, count, 10)]
            write_tensors(file, {"pictures": torch.cat(painted).movedim(1, -1)}, {})
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
            from compinv_core.boxes.layout import Layout
            from compinv_core.host.spatial.guidance import apply_layout_guidance
            from compinv_core.spatial.settings import GuidanceConfig

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
        from compinv_core.host.folders import MINIATURE_WORLD
        from compinv_core.host.layouts.prediction import predict_layout
        from compinv_core.host.layouts.predictor_choice import chosen_predictor

        with torch.inference_mode():
            layout, _ = predict_layout(chosen_predictor(MINIATURE_WORLD), self.clip, tuple(phrases), SIDE, SIDE)
        return layout.boxes

    @torch.inference_mode()
    def restored(self, pictures: Tensor) -> Tensor:
        """Pictures (N, SIDE, SIDE, 3) in [0, 1] as the autoencoder shows them, (N, 3, SIDE, SIDE)."""
        return self.vae.decode(self.vae.encode(pictures)).movedim(-1, 1).clamp(0, 1).float().clone()

    def _encode(self, text: str) -> list:
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))


def _concept(instance: Instance, name: str, masked: bool, **more: Any) -> Any:
    """An own thing with its photos (5, SIDE, SIDE, 3) in [0, 1] and, if wanted, their masks (5, SIDE, SIDE)."""
    from compinv_core.learning.concept import Concept

    pictures, masks = photos(instance)
    shown = (torch.from_numpy(masks),) if masked else None
    images = (torch.from_numpy(pictures).float().div(255),)
    return Concept(name, instance.noun, photos=images, masks=shown, **more)
