"""The settings of the methods that also train the diffusion model, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from .checks import check_choice, check_positive, check_range
from .inversion_config import InversionConfig
from .optimizers import OPTIMIZERS
from .training_loop import LoopSettings

_KEY_AND_VALUE = (".attn2.to_k.weight", ".attn2.to_v.weight")
# Memory options and what is made of the result change no bit of the training.
_NOT_IN_FINGERPRINT = frozenset({"gradient_checkpointing", "lora_rank"})


@dataclass(frozen=True)
class TuningConfig(InversionConfig):
    """What Custom Diffusion and DreamBooth have in common, beside the settings of the token.

    Attributes
    ----------
    learning_rate : float
        Effective rate of the model's weights.
    template, preview_prompt : str
        As in both methods' papers, the word stands before the class noun.
    token_learning_rate : float
        Effective rate of the token vectors; 0 for that of the weights, as in the released code.
    prior_weight : float
        Weight of the loss on pictures of the class; 0 trains without them.
    class_prompt : str
        Prompt of the class pictures; empty for the superclass.
    num_class_images : int
        Pictures of the class, 200 in the paper.
    gradient_accumulation : int
        Batches per step.
    gradient_checkpointing : bool
        Compute activations twice instead of keeping them.
    optimizer : str
        One of `compinv_core.optimizers.OPTIMIZERS`.
    """

    template: str = "object with class"
    preview_prompt: str = "a photo of {} {class}"
    token_learning_rate: float = 0.0
    prior_weight: float = 1.0
    class_prompt: str = ""
    num_class_images: int = 200
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = False
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "class_prompt", " ".join(self.class_prompt.split()) or self.superclass)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_range("token_learning_rate", self.token_learning_rate, 0)
        check_range("prior_weight", self.prior_weight, 0)
        check_range("num_class_images", self.num_class_images, 1)
        check_range("gradient_accumulation", self.gradient_accumulation, 1)

    @property
    def token_rate(self) -> float:
        """The learning rate of the token vectors."""
        return self.token_learning_rate or self.learning_rate

    def loop_settings(self, scale_loss: bool) -> LoopSettings:
        """See `InversionConfig.loop_settings`."""
        common = super().loop_settings(scale_loss)
        return replace(common, accumulation=self.gradient_accumulation, optimizer=self.optimizer)

    def fingerprint(self) -> dict[str, str]:
        """See `InversionConfig.fingerprint`."""
        settings = super().fingerprint()
        return {"method": self.method} | {k: v for k, v in settings.items() if k not in _NOT_IN_FINGERPRINT}


@dataclass(frozen=True)
class CustomDiffusionConfig(TuningConfig):
    """Custom Diffusion: keys and values of the cross-attention, and the token. Defaults of the paper.

    The fields are those of `TuningConfig`; the paper's learning rate is 1e-5 x batch 2.
    """

    method: ClassVar[str] = "Custom Diffusion"
    node_name: ClassVar[str] = "Train Custom Diffusion"

    steps: int = 500
    batch_size: int = 2
    learning_rate: float = 2e-5
    anchor_weight: float = 0.95

    def trains_weight(self, name: str) -> bool:
        """See `InversionConfig.trains_weight`."""
        return name.endswith(_KEY_AND_VALUE)


@dataclass(frozen=True)
class DreamBoothConfig(TuningConfig):
    """DreamBooth: the whole diffusion model, and the token; the text encoder's layers stay as they are.

    Steps, batch and anchor weight are the paper's (0.4 is the anchor weight of the released script), the learning rate
    is the released script's.

    Attributes
    ----------
    lora_rank : int
        Rank of the LoRA that the trained difference is cut down to.
    """

    method: ClassVar[str] = "DreamBooth"
    node_name: ClassVar[str] = "Train DreamBooth"

    steps: int = 800
    batch_size: int = 1
    learning_rate: float = 1e-5
    anchor_weight: float = 0.6
    save_every: int = 200
    lora_rank: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("lora_rank", self.lora_rank)

    def trains_weight(self, name: str) -> bool:
        """See `InversionConfig.trains_weight`."""
        return True
