"""The settings that all methods have, with the defaults of textual inversion; checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..basics.settings import check_settings, setting
from ..semantic.anchors import REDUCTIONS
from ..semantic.hold import ANCHOR_LOSS, HOLDS, SPHERE, Hold
from ..semantic.recoding import RecoderSettings
from ..semantic.sparse_coding import CODERS
from ..training.loop import LoopSettings
from ..words.sentences import TEMPLATES, split_template
from .methods import TEXTUAL_INVERSION, Method

PRESETS = ("paper", "official_2024")
_MANY = 100_000
_TRAINING, _RUN, _HOLD = "training", "run", "hold"


@dataclass(frozen=True)
class InversionConfig:
    """Settings of textual inversion, and what all methods have in common. The fields are the inputs of the node."""

    method: ClassVar[Method] = TEXTUAL_INVERSION

    # What only the methods have that train the model, too, in the order in which their inputs stand.
    class_prompt: ClassVar[str] = ""
    num_class_images: ClassVar[int] = 0
    prior_weight: ClassVar[float] = 0.0
    token_learning_rate: ClassVar[float] = 0.0
    optimizer: ClassVar[str] = "adamw"
    gradient_checkpointing: ClassVar[bool] = False
    gradient_accumulation: ClassVar[int] = 1
    lora_rank: ClassVar[int] = 0

    steps: int = setting(
        1000,
        "whole number",
        "Training steps",
        within=(1, _MANY),
        paper="5000 at batch 8",
        # A finished run may be given more.
        changes_result=False,
        group=_TRAINING,
    )
    batch_size: int = setting(
        4,
        "whole number",
        "Noised photos per step, drawn with repetition. Lower it when memory runs out",
        within=(1, 64),
        paper="8",
        group=_TRAINING,
    )
    learning_rate: float = setting(
        0.005,
        "number",
        "Effective rate of the optimiser; nothing multiplies it",
        within=(0, 1),
        above=True,
        step=0.0001,
        paper="0.005 x batch 8 = 0.04",
        group=_TRAINING,
    )
    anchor_weight: float = setting(
        0.95,
        "number",
        "Lambda: share of the anchor loss, the rest is the reconstruction. Nearer to 1 the word combines better and "
        "looks less like your photos. No effect without anchors",
        within=(0, 1),
        step=0.01,
        paper="0.95 (with anchor_reduction seq_mean)",
        group=_TRAINING,
    )
    max_active_anchors: int = setting(
        4,
        "whole number",
        "Most anchors in use at a time, superclass included (c - 1 of the paper). 1 leaves the superclass",
        within=(1, 32),
        group=_TRAINING,
    )
    recode_every: int = setting(
        100,
        "whole number",
        "Steps between two choices of anchors. 0 keeps the superclass as the only one",
        within=(0, _MANY),
        group=_TRAINING,
    )
    sparse_coder: str = setting(
        "nn_omp",
        "choice",
        "How anchors are chosen: non-negative orthogonal matching pursuit, or scikit-learn's positive lasso by least "
        "angles or coordinate descent",
        choices=CODERS,
        rare=True,
        group=_TRAINING,
    )
    anchor_reduction: str = setting(
        "seq_mean",
        "choice",
        "What the squared distance is divided by: seq_mean 77 x the embedding's width (the authors' code; the paper's "
        "0.95 refers to it), dim_mean the width, sum 1. The log gives the equal anchor_weight for the others",
        choices=REDUCTIONS,
        rare=True,
        group=_TRAINING,
    )
    template: str = setting(
        "object with class",
        "choice",
        "Sentences around the word in training: for a thing, for a style, or for a thing with its class noun behind "
        "the word. Prompt it as it was trained: embedding:my-cat, or with class embedding:my-cat cat",
        paper="with class",
        choices=tuple(TEMPLATES),
        group=_TRAINING,
    )
    preview_every: int = setting(
        0,
        "whole number",
        "Steps between preview pictures of 12 sampling steps; 0 for none. The result is the same",
        within=(0, _MANY),
        changes_result=False,
        group=_RUN,
    )
    preview_prompt: str = setting(
        "a photo of {} {class}",
        "text",
        "Prompt of the preview, with {} in the place of the learned word and {class} in that of the superclass",
        rare=True,
        changes_result=False,
        group=_RUN,
    )
    save_every: int = setting(
        100,
        "whole number",
        "Steps between saves of the training state in output/compinv/runs. It is saved on stopping in any case; 0 "
        "saves only then and at the end",
        within=(0, _MANY),
        rare=True,
        changes_result=False,
        group=_RUN,
    )
    resume: bool = setting(
        True,
        "switch",
        "Continue a stopped training of the same name and inputs; on the same machine and number of threads, bit for "
        "bit. Off begins anew and keeps the old state as previous.safetensors",
        changes_result=False,
        group=_RUN,
    )
    seed: int = setting(
        0,
        "whole number",
        "Seed of the training's random numbers, up to 2^64 - 1",
        within=(0, 2**64 - 1),
        seed=True,
        group=_RUN,
    )
    preset: str = setting(
        "paper",
        "choice",
        "official_2024 repeats the authors' released code for comparison: the superclass is the only anchor for good, "
        "the mask has no effect, only the first of several vectors is trained",
        choices=PRESETS,
        rare=True,
        optional=True,
        group=_RUN,
    )
    templates: tuple[str, ...] = setting(
        (),
        "lines",
        "Sentences of your own instead of the template's, one per line, each with {} in the place of the learned word; "
        "{class} stands for the superclass. Empty takes the template",
        name="custom_templates",
        shown="",
        rare=True,
        optional=True,
        long=True,
        group=_RUN,
    )
    hold: str = setting(
        ANCHOR_LOSS,
        "choice",
        "What keeps the word near its anchors: the paper's anchor loss, which anchor_weight weighs; a radius or a "
        "direction that it may not leave, which mean the same for any number of steps, rate and batch; radius and "
        "anchor loss; or a sphere, where only its direction is learned (directional textual inversion). No effect "
        "without anchors",
        choices=HOLDS,
        rare=True,
        optional=True,
        later=True,
        group=_HOLD,
    )
    radius: float = setting(
        0.5,
        "number",
        "How far the word may be from its anchors, as a share of their length: 0.3 stays an ordinary cat, 0.5 is near "
        "your photos and still combines, 1 hardly holds. Only where hold has a radius",
        within=(0, 100),
        above=True,
        step=0.05,
        rare=True,
        optional=True,
        later=True,
        group=_HOLD,
    )
    angle: float = setting(
        40.0,
        "number",
        "Most degrees between the word and its anchors, at the length of the class noun. Only where hold is direction",
        within=(0, 180),
        above=True,
        step=1.0,
        rare=True,
        optional=True,
        later=True,
        group=_HOLD,
    )
    concentration: float = setting(
        1e-4,
        "number",
        "How strongly the direction is drawn to the superclass's. Only where hold is sphere (its paper: 0.0001)",
        within=(0, 1),
        step=1e-5,
        rare=True,
        optional=True,
        later=True,
        group=_HOLD,
    )
    context_weight: float = setting(
        0.0,
        "number",
        "Weight of the loss that keeps anchors in sentences beside the word as they are beside the superclass (CoRe; "
        "its paper: 0.00015). 0 is off. No effect without anchors",
        within=(0, 100),
        step=1e-4,
        rare=True,
        optional=True,
        later=True,
        group=_HOLD,
    )
    recode_momentum: float = setting(0.5, "number", "See `recoding.RecoderSettings`", within=(0, 1))
    superclass_share: float = setting(0.25, "number", "See `recoding.RecoderSettings`", within=(0, 1))

    def __post_init__(self) -> None:
        check_settings(self)
        for template in self.sentences:
            split_template(template)
        if self.preview_every:
            split_template(self.preview_prompt, "preview_prompt")

    @property
    def token_rate(self) -> float:
        """The learning rate of the token vectors."""
        return self.token_learning_rate or self.learning_rate

    @property
    def trained_vectors(self) -> int | None:
        """How many of a concept's vectors are trained; None for all."""
        return 1 if self.preset == "official_2024" else None

    @property
    def sentences(self) -> tuple[str, ...]:
        """The training templates in use."""
        return self.templates or TEMPLATES[self.template]

    @property
    def reduction(self) -> str:
        """The reduction of the anchor loss in use."""
        return "seq_mean" if self.preset == "official_2024" else self.anchor_reduction

    @property
    def bounds(self) -> Hold:
        """By what the word is held."""
        if self.preset == "official_2024":
            return Hold()
        return Hold(self.hold, self.radius, self.angle, self.concentration, self.token_rate)

    def recoder_settings(self) -> RecoderSettings:
        """Return the settings of the sparse code that these settings imply."""
        return RecoderSettings(
            max_active=self.max_active_anchors,
            coder=self.sparse_coder,
            recode_every=0 if self.preset == "official_2024" or self.hold == SPHERE else self.recode_every,
            momentum=self.recode_momentum,
            superclass_share=self.superclass_share,
        )

    def loop_settings(self, scale_loss: bool) -> LoopSettings:
        """Return the settings of the training loop; `scale_loss` where the network computes in float16."""
        return LoopSettings(
            self.steps,
            self.seed,
            self.save_every,
            self.resume,
            scale_loss,
            self.gradient_accumulation,
            self.optimizer,
        )
