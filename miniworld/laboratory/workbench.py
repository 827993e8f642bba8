"""Any Stable Diffusion on the real host, in process: learn things from photos, and paint prompts with them.

Everything runs through the pack's own functions and the host's own sampler; only the graph editor is left out. What was
learned is kept in the host's folders and used again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from compinv_core.basics.tensor_file import write_tensors

from .habits import Habits
from .things import Thing, Word

Box = tuple[float, float, float, float]


class Workbench:
    """One model on the host.

    Parameters
    ----------
    base
        Folder of the host's models and outputs.
    models
        The host's MODEL, CLIP and VAE.
    """

    def __init__(self, base: Path, models: tuple[Any, Any, Any], habits: Habits) -> None:
        self.base, self.habits = base, habits
        self.seconds: dict[str, float] = {}
        """What learning a name took, of those that were learned or repaired here, and not in one batch with others."""
        self.model, self.clip, self.vae = models

    @cached_property
    def anchors(self) -> Any:
        from compinv_core.host.text.encoder import load_anchors

        return load_anchors(self.clip, self.habits.anchor_words)

    def learn(self, thing: Thing, name: str, masked: bool = False, with_class: bool = False, **settings: Any) -> str:
        """Learn a thing unless an embedding of this name is there; returns the word for prompts.

        ``settings`` are fields of ``InversionConfig`` and ``num_vectors``; anchor weight 0 is plain textual inversion.
        ``with_class`` says that the word stands before its class noun, in training as in prompts.
        """
        word = Word(thing, name, masked, with_class, settings)
        if not self.has(name):
            config, concept = self._prepared(word)
            self._train(config, [concept], name)
        return f"embedding:{name} {thing.noun}" if with_class else f"embedding:{name}"

    def learn_all(self, words: Sequence[Word], together: bool | None = None) -> None:
        """Learn all words whose embeddings are not there.

        ``together`` learns them in one batch, which begins anew when it was killed; by default that is done on a
        graphics card. One after the other every word is resumed. The files are the same, to rounding.
        """
        missing = list({word.name: word for word in words if not self.has(word.name)}.values())
        if self.on_card if together is None else together:
            self._train_together(missing)
        else:
            for word in missing:
                self.learn(word.thing, word.name, word.masked, word.with_class, **word.settings)

    @property
    def on_card(self) -> bool:
        """Whether the model computes on a graphics card, where many words are learned best in one batch."""
        return self.model.load_device.type == "cuda"

    def has(self, name: str) -> bool:
        """Tell whether the embedding of a word is there."""
        return (self.base / "models" / "embeddings" / f"{name}.safetensors").exists()

    def _prepared(self, word: Word) -> tuple[Any, Any]:
        """The configuration and the concept of a word."""
        from compinv_core.learning.settings import InversionConfig

        settings = dict(word.settings)
        vectors = settings.pop("num_vectors", 1)
        templates = self.habits.templates_with_class if word.with_class else self.habits.templates
        concept = word.thing.concept(word.name, word.masked, num_vectors=vectors)
        return InversionConfig(templates=templates, **settings), concept

    def adjust(self, thing: Thing, learned: str, name: str, anchored: bool = True, strength: float = 0.4) -> str:
        """Repair a learned word that stands before its class noun, as *Adjust Embedding* does; return the phrase.

        ``anchored`` turns it to its sparse anchors; False to the class noun alone.
        """
        from compinv_core.host.semantic.words import ADJUST_NODE, adjust_word, chosen_word

        if not self.has(name):
            begun = time.perf_counter()
            with torch.inference_mode():
                word = chosen_word(self.clip, f"{learned}.safetensors", None, ADJUST_NODE)
                anchors = self.anchors if anchored else None
                adjust_word(self.clip, word, anchors, thing.noun, strength, 1.0, name)
            self.seconds[name] = time.perf_counter() - begun
        return f"embedding:{name} {thing.noun}"

    def tune(
        self,
        method: str,
        things: Sequence[Thing],
        name: str,
        masked: bool = False,
        onto: Any = None,
        **settings: Any,
    ) -> tuple[Any, tuple[str, ...]]:
        """Learn things by a method that trains the model, together where there are several, unless that is done.

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
            For prompts, one for each of ``things``.
        """
        from compinv_core.learning.tuning_settings import CustomDiffusionConfig, DreamBoothConfig

        kind = {kind.method.name: kind for kind in (CustomDiffusionConfig, DreamBoothConfig)}[method]
        names = [f"{name}-{thing.name}" for thing in things]
        file = self.base / "models" / "diffusion_models" / f"{name}.safetensors"
        if not file.exists():
            concepts = [
                thing.concept(its_name, masked, class_images=(self.class_pictures(thing.noun),))
                for thing, its_name in zip(things, names, strict=True)
            ]
            config = kind(
                templates=self.habits.templates_with_class, num_class_images=self.habits.class_pictures, **settings
            )
            result = self._train(config, concepts, name)
            trained = {key: patches[-1][1][1][0].contiguous() for key, patches in result.model.patches.items()}
            write_tensors(file, trained, {})
        model = (self.model if onto is None else onto).clone()
        patch = {"differences": "diff", "values": "set"}[kind.method.outcome]
        model.add_patches({key: (patch, (tensor,)) for key, tensor in load_file(file).items()})
        return model, tuple(f"embedding:{its_name}" for its_name in names)

    def in_stages(self, kind: type, thing: Thing, name: str, steps: Sequence[int], **settings: Any) -> Iterator[Any]:
        """Learn a thing from whole photos, its word before its noun, and stop on the way after each of these steps.

        ``kind`` is a configuration's class, and ``settings`` are its fields and ``num_vectors``. Yields the training's
        result (``model``, ``concepts``, ``history``), during which the word is ``embedding:NAME NOUN``.
        """
        vectors = settings.pop("num_vectors", 1)
        more: dict[str, Any] = {}
        if kind.method.trains_model:
            settings["num_class_images"] = self.habits.class_pictures
            more["class_images"] = (self.class_pictures(thing.noun),)
        concept = thing.concept(name, False, num_vectors=vectors, **more)
        for count in steps:
            config = kind(templates=self.habits.templates_with_class, **settings | {"steps": count})
            yield self._train(config, [concept], name)

    def _train(self, config: Any, concepts: list[Any], name: str) -> Any:
        from compinv_core.host.learning.train import Places, train_concepts

        models = (self.model, self.clip, self.vae)
        places = Places(self.base / "output" / "compinv" / "runs" / name, self.base / "models" / "embeddings")
        begun = time.perf_counter()
        with torch.inference_mode():
            result = train_concepts(*models, config, concepts, self._anchors_for(config), places)
        self.seconds[name] = time.perf_counter() - begun
        return result

    def _train_together(self, words: Sequence[Word]) -> None:
        from compinv_core.host.learning.train import Wish, learn_together

        prepared = [self._prepared(word) for word in words]
        wishes = [Wish(config, concept, self._anchors_for(config)) for config, concept in prepared]
        if wishes:
            with torch.inference_mode():
                learn_together(self.model, self.clip, self.vae, wishes, self.base / "models" / "embeddings")

    def _anchors_for(self, config: Any) -> Any:
        return self.anchors if config.anchor_weight or config.context_weight else None

    def class_pictures(self, noun: str) -> Tensor:
        """Pictures (n, side, side, 3) in [0, 1] of a class for the prior loss, painted once."""
        count = self.habits.class_pictures
        file = self.base / "input" / f"class-{noun}-{count}.safetensors"
        if not file.exists():
            painted = [self.paint(f"a photo of a {noun}", 40_000 + first, 10) for first in range(0, count, 10)]
            write_tensors(file, {"pictures": torch.cat(painted).movedim(1, -1)[:count]}, {})
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
        """Pictures (count, 3, side, side) in [0, 1]; guided where phrases and their boxes are given.

        ``guidance`` are fields of ``GuidanceConfig``, ``painting`` overrides the habits; ``model`` is one that `tune`
        returned, by default the model as it is.
        """
        model, positive = self.prompted(model, prompt, phrases, boxes, guidance)
        samples = self.sampled(model, positive, seed, count, painting)
        return self.vae.decode(samples).movedim(-1, 1).clamp(0, 1).float().clone()

    @torch.inference_mode()
    def recorded(
        self,
        prompt: str,
        phrases: tuple[str, ...],
        seed: int,
        count: int = 1,
        model: Any = None,
        boxes: tuple[Box, ...] = (),
        guidance: dict[str, Any] | None = None,
    ) -> Any:
        """The attention of phrases (an ``AttentionRecord``) while a prompt is painted, guided where there are boxes."""
        from compinv_core.host.recording.recorder import record_attention

        recording_model, recording = record_attention(
            self.model if model is None else model, self.clip, prompt, phrases
        )
        guided, positive = self.prompted(recording_model, prompt, phrases if boxes else (), boxes, guidance)
        return recording.record_of(self.sampled(guided, positive, seed, count, {}))

    def prompted(
        self,
        model: Any,
        prompt: str,
        phrases: tuple[str, ...],
        boxes: tuple[Box, ...],
        guidance: dict[str, Any] | None,
    ) -> tuple[Any, list]:
        """MODEL and CONDITIONING of a prompt, guided where there are phrases; arguments as in `paint`."""
        model, side = self.model if model is None else model, self.habits.side
        if not phrases:
            return model, self.encode(prompt)
        from compinv_core.boxes.layout import Layout
        from compinv_core.host.spatial.guidance import apply_layout_guidance
        from compinv_core.spatial.settings import GuidanceConfig

        layout = Layout(phrases=phrases, boxes=boxes, width=side, height=side)
        return apply_layout_guidance(model, self.clip, prompt, layout, GuidanceConfig(**(guidance or {})))

    def sampled(self, model: Any, positive: list, seed: int, count: int, painting: dict[str, Any]) -> Tensor:
        """Latents of so many pictures; ``painting`` overrides the habits."""
        import nodes

        p, side = self.habits.painting | painting, self.habits.side
        latent = {"samples": torch.zeros(count, 4, side // 8, side // 8)}
        (samples,) = nodes.common_ksampler(
            model, seed, p["steps"], p["cfg"], p["sampler_name"], p["scheduler"], positive, self.encode(""), latent
        )
        return samples["samples"]

    @torch.inference_mode()
    def restored(self, pictures: Tensor) -> Tensor:
        """Pictures (N, side, side, 3) in [0, 1] as the autoencoder shows them, (N, 3, side, side)."""
        return self.vae.decode(self.vae.encode(pictures)).movedim(-1, 1).clamp(0, 1).float().clone()

    def encode(self, text: str) -> list:
        """CONDITIONING of a text."""
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))
