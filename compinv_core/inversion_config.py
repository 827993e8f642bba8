"""The settings of textual inversion, which all methods have; checked when they are made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

from .anchors import REDUCTIONS
from .checks import check_choice, check_positive, check_range
from .concept import check_name
from .concept_images import MOST_VECTORS, check_superclass
from .recoding import RecoderSettings
from .sparse_coding import CODERS
from .training_loop import LoopSettings
from .words.sentences import TEMPLATES, split_template

PRESETS = ("paper", "official_2024")

# These change what is shown or how long is trained, never the bits of the first n steps.
_NOT_IN_FINGERPRINT = frozenset({"name", "steps", "preview_every", "preview_prompt", "save_every", "resume"})


@dataclass(frozen=True)
class InversionConfig:
    """Settings of textual inversion, and the base of those of the other methods; checked when made.

    The fields are the inputs of the training node.

    Attributes
    ----------
    name : str
        Name of the concept: letters, digits, ``-``, ``_``.
    superclass : str
        Ordinary noun for the concept, such as ``cat``.
    init_word : str
        Word whose embedding is the start; empty for the superclass.
    num_vectors : int
        Token vectors to learn, 1 to 75.
    steps, batch_size : int
    learning_rate : float
        Effective rate of AdamW, not multiplied by anything. The paper: 0.005 x batch 8 = 0.04.
    anchor_weight : float in [0, 1]
        lambda; without anchors it has no effect.
    max_active_anchors : int
    recode_every : int
        Steps between codings; 0 keeps the first code.
    sparse_coder, anchor_reduction : str
    template : {"object", "style", "object with class"}
    templates : tuple of str
        Sentences with ``{}``, and ``{class}`` if wanted, to be used instead of the named list; empty for none.
    preview_every : int
        Steps between previews; 0 for none.
    preview_prompt : str
        With ``{}`` for the learned word, and ``{class}`` if wanted; not read without previews.
    save_every : int
    resume : bool
    seed : int
    preset : {"paper", "official_2024"}
        ``official_2024`` repeats the choices of the authors' released code for comparison: the superclass is the only
        anchor, its code is never renewed, the loss is reduced by ``seq_mean``, the mask has no effect and only the
        first of several vectors is trained.
    recode_momentum, superclass_share : float
        See `compinv_core.recoding.RecoderSettings`.
    """

    method: ClassVar[str] = "textual inversion"
    node_name: ClassVar[str] = "Train Concept"

    name: str
    superclass: str
    init_word: str = ""
    num_vectors: int = 1
    steps: int = 1000
    batch_size: int = 4
    learning_rate: float = 0.005
    anchor_weight: float = 0.95
    max_active_anchors: int = 4
    recode_every: int = 100
    sparse_coder: str = "nn_omp"
    anchor_reduction: str = "seq_mean"
    template: str = "object"
    templates: tuple[str, ...] = ()
    preview_every: int = 0
    preview_prompt: str = "a photo of {}"
    save_every: int = 100
    resume: bool = True
    seed: int = 0
    preset: str = "paper"
    recode_momentum: float = 0.5
    superclass_share: float = 0.25

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", check_name(self.name))
        object.__setattr__(self, "superclass", check_superclass(self.superclass))
        object.__setattr__(self, "init_word", " ".join(self.init_word.split()) or self.superclass)
        check_choice("sparse_coder", self.sparse_coder, CODERS)
        check_choice("anchor_reduction", self.anchor_reduction, REDUCTIONS)
        check_choice("template", self.template, tuple(TEMPLATES))
        check_choice("preset", self.preset, PRESETS)
        check_range("num_vectors", self.num_vectors, 1, MOST_VECTORS)
        check_range("steps", self.steps, 1)
        check_range("batch_size", self.batch_size, 1)
        check_range("max_active_anchors", self.max_active_anchors, 1)
        check_range("anchor_weight", self.anchor_weight, 0, 1)
        check_range("superclass_share", self.superclass_share, 0, 1)
        for name in ("recode_every", "preview_every", "save_every"):
            check_range(name, getattr(self, name), 0)
        check_positive("learning_rate", self.learning_rate)
        for template in self.sentences:
            split_template(template)
        if self.preview_every:
            split_template(self.preview_prompt, "preview_prompt")

    @property
    def token_rate(self) -> float:
        """The learning rate of the token vectors."""
        return self.learning_rate

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

    def recoder_settings(self) -> RecoderSettings:
        """Return the settings of the sparse code that these settings imply.

        Returns
        -------
        RecoderSettings
        """
        official = self.preset == "official_2024"
        return RecoderSettings(
            max_active=self.max_active_anchors,
            coder=self.sparse_coder,
            recode_every=0 if official else self.recode_every,
            momentum=self.recode_momentum,
            superclass_share=self.superclass_share,
        )

    def trains_weight(self, name: str) -> bool:
        """Tell whether a weight of the diffusion model is trained.

        Parameters
        ----------
        name : str
            Of the parameter, as the host's network names it.

        Returns
        -------
        bool
            False in textual inversion.
        """
        return False

    def loop_settings(self, scale_loss: bool) -> LoopSettings:
        """Return the settings of the training loop.

        Parameters
        ----------
        scale_loss : bool
            Whether the network computes in float16.

        Returns
        -------
        LoopSettings
        """
        return LoopSettings(self.steps, self.seed, self.save_every, self.resume, scale_loss)

    def fingerprint(self) -> dict[str, str]:
        """Return the settings that the learned bits depend on, as text.

        Returns
        -------
        dict of str to str
        """
        return {key: repr(value) for key, value in asdict(self).items() if key not in _NOT_IN_FINGERPRINT}
