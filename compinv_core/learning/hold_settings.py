"""How a word is held while it is learned, and which of its steps becomes the result."""

from __future__ import annotations

from dataclasses import dataclass

from ..basics.settings import setting
from ..semantic.hold import ANCHOR_LOSS, HOLDS, RADIUS
from ..training.watch import ALL_STEPS, KEEPS, LAST, STOPS

_HOLD = "hold"


@dataclass(frozen=True)
class HoldSettings:
    """The settings of hold and choice that all methods have; a part of `settings.InversionConfig`."""

    hold: str = setting(
        ANCHOR_LOSS,
        "choice",
        "What keeps the word near its anchors: the paper's anchor loss, which anchor_weight weighs; a radius or a "
        "direction that it may not leave, which mean the same for any number of steps, rate and batch; radius and "
        "anchor loss; or a sphere, where only its direction is learned (directional textual inversion). No effect "
        "without anchors",
        choices=HOLDS,
        # Graphs from before this input have the paper's loss.
        shown=RADIUS,
        rare=True,
        optional=True,
        later=True,
        group=_HOLD,
    )
    radius: float = setting(
        0.5,
        "number",
        "How far the word may be from its anchors, as a share of their length: at 0.3 it stays an ordinary cat, at 0.5 "
        "it still combines, at 0.7 it is nearer to your photos, 1 hardly holds. Only where hold has a radius",
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
    keep: str = setting(
        LAST,
        "choice",
        "Which step is the result: the last, or of those that have learned enough the one whose word shares attention "
        "with other nouns most as its class noun does",
        choices=KEEPS,
        rare=True,
        optional=True,
        later=True,
        group=_HOLD,
    )
    stop: str = setting(
        ALL_STEPS,
        "choice",
        "When to end: after all steps, or before, when neither the photos are learned better nor the word combines "
        "better any more",
        choices=STOPS,
        rare=True,
        optional=True,
        later=True,
        group=_HOLD,
    )
    composition_nouns: tuple[str, ...] = setting(
        (),
        "lines",
        "Nouns, one per line, beside which the word is measured while it is learned. Empty takes four of the anchors, "
        "or of the 80 COCO nouns",
        shown="",
        rare=True,
        optional=True,
        later=True,
        long=True,
        group=_HOLD,
    )
    saved_step: int = setting(
        0,
        "whole number",
        "0 trains, and keep says which step is the result. Else the step of the saved training of this name that "
        "becomes the result, without training: every save of a word or of factors up to 64 MB is kept, of larger "
        "trainings the last step, and the best where keep asks for it",
        within=(0, 100_000),
        rare=True,
        optional=True,
        changes_result=False,
        group="choice",
    )
