"""The settings of the methods that train the diffusion model, too, with each method's defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..basics.settings import changed, setting
from ..semantic.hold import ANCHOR_LOSS, BOTH
from ..training.optimizers import OPTIMIZERS
from .methods import CUSTOM_DIFFUSION, DREAMBOOTH, Method
from .settings import InversionConfig

_PRIOR = "prior"


@dataclass(frozen=True)
class TuningConfig(InversionConfig):
    """What the methods have in common that train the model; as in their papers, the word stands before its noun."""

    class_prompt: str = setting(
        "", "text", "Prompt of the class pictures of the first concept. Empty takes the superclass", group=_PRIOR
    )  # pyright: ignore[reportIncompatibleVariableOverride]
    num_class_images: int = setting(
        200, "whole number", "Pictures of each class", within=(1, 10_000), paper="200", group=_PRIOR
    )
    prior_weight: float = setting(
        1.0,
        "number",
        "Weight of the loss on class pictures, which keeps the class itself from becoming your thing. 0 trains without "
        "them",
        within=(0, 100),
        step=0.05,
        paper="1",
        group=_PRIOR,
    )
    token_learning_rate: float = setting(
        0.0,
        "number",
        "Effective rate of the word's vectors. 0 takes learning_rate, as in the authors' script",
        within=(0, 1),
        step=0.00001,
        rare=True,
        optional=True,
        group=_PRIOR,
    )
    optimizer: str = setting(
        "adamw",
        "choice",
        "adamw keeps 8 bytes per trained number, adamw_8bit 2 (needs bitsandbytes and a graphics card), adafactor next "
        "to none",
        choices=OPTIMIZERS,
        paper="adamw",
        rare=True,
        optional=True,
        group="optimizer",
    )
    gradient_accumulation: int = setting(
        1,
        "whole number",
        "Batches per step, whose gradients are averaged: a larger batch in the memory of a small one",
        within=(1, 256),
        paper="1",
        rare=True,
        optional=True,
        group="accumulation",
    )
    # A radius alone leaves the weights as they are without anchors: there, λ says how much they learn of the photos
    # beside what they learn of the class.
    hold: str = changed(InversionConfig, "hold", ANCHOR_LOSS, shown=BOTH)
    train_rank: int = setting(
        0,
        "whole number",
        "Rank of the training itself. 0 trains whole weights. Above 0 two thin factors of this rank are trained for "
        "every matrix and convolution, which takes a small part of the memory; lora is then these very factors, and "
        "model what a LoRA loader makes of them. 16 is usual, with about ten times the learning_rate. The paper has no "
        "such form",
        within=(0, 4096),
        rare=True,
        optional=True,
        later=True,
        group="rank",
    )


@dataclass(frozen=True)
class CustomDiffusionConfig(TuningConfig):
    """Settings of Custom Diffusion; defaults of its paper."""

    method: ClassVar[Method] = CUSTOM_DIFFUSION

    steps: int = changed(TuningConfig, "steps", 500, paper="500")
    batch_size: int = changed(TuningConfig, "batch_size", 2, paper="2")
    learning_rate: float = changed(TuningConfig, "learning_rate", 2e-5, step=4e-7, paper="1e-5 x batch 2 = 2e-5")


@dataclass(frozen=True)
class DreamBoothConfig(TuningConfig):
    """Settings of DreamBooth: steps, batch and anchor weight of the paper, the rate of the authors' script."""

    method: ClassVar[Method] = DREAMBOOTH

    steps: int = changed(TuningConfig, "steps", 800, paper="800")
    batch_size: int = changed(TuningConfig, "batch_size", 1, paper="1")
    learning_rate: float = changed(TuningConfig, "learning_rate", 1e-5, step=2e-7, paper="1e-5 in the authors' script")
    anchor_weight: float = changed(
        TuningConfig, "anchor_weight", 0.6, paper="0.6 (with anchor_reduction seq_mean), 0.4 in the authors' script"
    )
    save_every: int = changed(TuningConfig, "save_every", 200)
    lora_rank: int = setting(
        32,
        "whole number",
        "Rank that the output lora cuts the trained difference down to. Higher is nearer to the trained model and a "
        "larger file. No effect where train_rank is above 0. The paper has no such form",
        within=(1, 4096),
        rare=True,
        optional=True,
        changes_result=False,
        group="lora",
    )
