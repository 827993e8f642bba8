"""The settings that all methods have, with the defaults of textual inversion; checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..basics.settings import check_settings, setting
from ..semantic.anchors import REDUCTIONS
from ..semantic.hold import SPHERE, Hold
from ..semantic.recoding import RecoderSettings
from ..semantic.sparse_coding import CODERS
from ..training.loop import LoopSettings
from ..training.low_rank import LowRank
from ..words.sentences import TEMPLATES, split_template
from .hold_settings import HoldSettings
from .methods import TEXTUAL_INVERSION, Method

PRESETS = ("paper", "official_2024")
_MANY = 100_000
_SAVED_USUALLY, _PICTURES_BETWEEN = 100, 100
_TRAINING, _RUN = "training", "run"


@dataclass(frozen=True)
class InversionConfig(HoldSettings):
    """Settings of textual inversion, and what all methods have in common. The fields are the inputs of the node."""

    method: ClassVar[Method] = TEXTUAL_INVERSION

    # What only the methods have that train the model, too, in the order in which their inputs stand.
    class_prompt: ClassVar[str] = ""
    num_class_images: ClassVar[int] = 0
    prior_weight: ClassVar[float] = 0.0
    token_learning_rate: ClassVar[float] = 0.0
    optimizer: ClassVar[str] = "adamw"
    gradient_accumulation: ClassVar[int] = 1
    lora_rank: ClassVar[int] = 0
    train_rank: ClassVar[int] = 0

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
        "looks less like your photos. Only where hold has the anchor loss, and anchors are connected",
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
        "0.95 refers to it), dim_mean the width, sum 1, per_anchor the number of anchors (the paper's Eq. 6 read "
        "literally, as their mean). The log gives the equal anchor_weight for the others",
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
        "the mask has no effect, one vector is learned whatever num_vectors is, weights decay by 0.01, photos are "
        "sampled from the autoencoder's posterior, and half of them mirrored where the model is trained, too",
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
    gradient_checkpointing: bool = setting(
        False,
        "switch",
        "Compute the model's blocks twice instead of keeping their activations: less memory, more time, the same "
        "result",
        paper="off",
        rare=True,
        optional=True,
        changes_result=False,
        group="memory",
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
    def low_rank(self) -> LowRank | None:
        """The factors that the diffusion model is trained by; None where its weights are trained themselves."""
        return LowRank(self.train_rank, self.seed) if self.train_rank else None

    @property
    def is_official(self) -> bool:
        """Whether the released code's choices are repeated."""
        return self.preset == "official_2024"

    @property
    def mirrors(self) -> bool:
        """Whether each picture of a batch is mirrored with probability 1/2."""
        return self.is_official and self.method.trains_model

    @property
    def sentences(self) -> tuple[str, ...]:
        """The training templates in use."""
        return self.templates or TEMPLATES[self.template]

    @property
    def with_class(self) -> bool:
        """Whether the class noun stands behind the word in training."""
        return "{class}" in self.sentences[0]

    @property
    def measured_every(self) -> int:
        """Steps between two measurements of how the word combines, which cost about a twentieth of the time.

        Where the model is trained, too, its weights may have to be kept, and it is measured where it is saved.
        """
        if self.method.trains_model:
            return self.save_every or _SAVED_USUALLY
        return -(-_PICTURES_BETWEEN // (self.batch_size * self.gradient_accumulation))

    @property
    def reduction(self) -> str:
        """The reduction of the anchor loss in use."""
        return "seq_mean" if self.is_official else self.anchor_reduction

    @property
    def bounds(self) -> Hold:
        """By what the word is held."""
        if self.is_official:
            return Hold()
        return Hold(self.hold, self.radius, self.angle, self.concentration, self.token_rate)

    def recoder_settings(self) -> RecoderSettings:
        """Return the settings of the sparse code that these settings imply."""
        return RecoderSettings(
            max_active=self.max_active_anchors,
            coder=self.sparse_coder,
            recode_every=0 if self.is_official or self.hold == SPHERE else self.recode_every,
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
            0.01 if self.is_official else 0.0,
        )
