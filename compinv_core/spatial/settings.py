"""The settings of spatial inversion guidance (Eq. 9): how strongly, how long, and on which attention maps."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..basics.errors import UserError, listed, quoted
from ..basics.settings import check_settings, setting
from .attention import HEAD_CHOICES

LOSS_FORMS = ("squared", "linear")
BLOCK_CHOICES = ("middle and first up", "middle", "first up", "all up")
SPAN_CHOICES = ("phrase", "placeholder")
PRESETS = ("paper", "official_2024")
METHODS = ("gradient", "injection", "hybrid")
_OFTEN, _RARE, _SHARE, _METHOD = "guidance", "rare", "share", "method"


@dataclass(frozen=True)
class GuidanceConfig:
    """How strongly, how long and on which attention maps the latents are guided; checked when made.

    Beside the node's inputs:

    Parameters
    ----------
    loss_per_head : bool
        Average the losses of single blocks and heads instead of taking the loss of the averaged map.
    stale_loss : bool
        Compare the threshold with the loss from *before* the last update, kept from step to step: an image whose loss
        was once at or below the threshold is never guided again.
    loss_per_token : bool
        Average the losses of a phrase's single tokens instead of taking the loss of their mean map.
    truncated_boxes : bool
        Truncate the edges of boxes to whole cells; see `boxes.layout.box_masks`.
    """

    strength: float = setting(
        30.0,
        "number",
        "Size of the updates, without unit: the latent moves by strength · sigma² times the gradient of the loss. 0 is "
        "off. Too much tears the picture apart",
        within=(0, 100_000),
        step=1.0,
        round=0.01,
        paper="30 in the authors' code",
        group=_OFTEN,
    )
    threshold: float = setting(
        0.2,
        "number",
        "An image is left alone at a step as soon as its loss, 0 (all attention inside the boxes) to 1, is not above "
        "this",
        within=(0, 1),
        step=0.01,
        round=0.001,
        paper="0.2 of the squared loss, in the authors' code",
        group=_OFTEN,
    )
    max_iterations: int = setting(
        5,
        "whole number",
        "Updates per guided step at most. Each costs about as much as one evaluation of the model",
        within=(0, 100),
        paper="5 in the authors' code",
        group=_OFTEN,
    )
    guided_steps: int = setting(
        10,
        "whole number",
        "Steps of the sampler that are guided, from the first on, where guided_share is 0; composition is settled "
        "early",
        within=(0, 1000),
        paper="10 of 50 in the authors' code, so about a fifth of the steps",
        group=_OFTEN,
    )
    loss: str = setting(
        "squared",
        "choice",
        "Of the share of attention outside each box, the mean of the squares (the authors' code) or the plain mean "
        "(linear, the paper's Eq. 9). The threshold refers to this number",
        choices=LOSS_FORMS,
        group=_OFTEN,
    )
    blocks: str = setting(
        BLOCK_CHOICES[0],
        "choice",
        "Parts of the UNet whose cross-attention is steered. The paper takes the middle block and the first decoder "
        "level with cross-attention; all up is slower and finer",
        choices=BLOCK_CHOICES,
        group=_OFTEN,
    )
    span: str = setting(
        "phrase",
        "choice",
        "Tokens of a phrase that count: the whole phrase, its class noun included, or only the learned placeholder of "
        "a phrase with an embedding (the authors' code)",
        choices=SPAN_CHOICES,
        rare=True,
        optional=True,
        group=_RARE,
    )
    heads: str = setting(
        "all",
        "choice",
        "Attention heads that count: all of them, or only the second half (the authors' code)",
        choices=HEAD_CHOICES,
        rare=True,
        optional=True,
        group=_RARE,
    )
    end_percent: float = setting(
        1.0,
        "number",
        "Part of the noise schedule, 0 (full noise) to 1 (none), after which nothing is guided, whatever guided_steps "
        "says. Below 1, a second pass over the finished picture stays unguided",
        within=(0, 1),
        step=0.01,
        round=0.001,
        paper="10 of 50 steps end at 0.2",
        rare=True,
        optional=True,
        group=_RARE,
    )
    guided_share: float = setting(
        0.0,
        "number",
        "Share of the sampler's steps that are guided, from the first on, at least one; 0 takes guided_steps instead",
        within=(0, 1),
        step=0.05,
        # Graphs from before this input keep their number of steps.
        shown=0.2,
        paper="10 of 50 steps, a share of 0.2",
        optional=True,
        group=_SHARE,
    )
    method: str = setting(
        METHODS[0],
        "choice",
        "How attention is moved: gradient changes the latent until it moves (the paper). injection adds a bias to the "
        "attention itself, inside and outside each region, at hardly any cost; strength counts only as on or off. "
        "hybrid injects, and takes one gradient step where the loss stays above the threshold",
        choices=METHODS,
        paper="gradient",
        optional=True,
        group=_METHOD,
    )
    injection_strength: float = setting(
        1.5,
        "number",
        "Size of the injected bias at full noise, as a share of the range that the attention's logits have; it sinks "
        "with the noise. 0 injects nothing",
        within=(0, 10),
        step=0.05,
        round=0.001,
        rare=True,
        optional=True,
        group=_METHOD,
    )
    loss_per_head: bool = False
    stale_loss: bool = False
    loss_per_token: bool = False
    truncated_boxes: bool = False

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def is_active(self) -> bool:
        """Whether any latent can change at all."""
        lasts = self.guided_share > 0 or self.guided_steps > 0
        return self.strength > 0 and lasts and (self.takes_gradients or self.injects)

    @property
    def takes_gradients(self) -> bool:
        """Whether latents are changed along a gradient."""
        return self.method != "injection" and self.max_iterations > 0

    @property
    def injects(self) -> bool:
        """Whether attention gets a bias."""
        return self.method != "gradient" and self.injection_strength > 0

    def steps_of(self, steps: int) -> int:
        """How many of so many steps are guided."""
        return max(1, round(self.guided_share * steps)) if self.guided_share > 0 else self.guided_steps

    def with_preset(self, preset: str) -> GuidanceConfig:
        """Apply a preset: "paper" changes nothing.

        "official_2024" repeats what the authors' released code does where it differs: the placeholder's tokens only,
        half of the heads, the loss per block, head and token, boxes truncated to whole cells, the stale loss.
        """
        if preset not in PRESETS:
            raise UserError(f"preset is {quoted(preset)}; give one of {listed(PRESETS)}.")
        if preset == "paper":
            return self
        return replace(
            self,
            span="placeholder",
            heads="second half",
            loss_per_head=True,
            loss_per_token=True,
            truncated_boxes=True,
            stale_loss=True,
            guided_share=0.0,
        )
