"""What a collection of layouts paints, and how: the settings of Collect Layouts."""

from __future__ import annotations

from dataclasses import dataclass

import comfy.samplers

from ...basics.errors import UserError, quoted
from ...basics.settings import check_settings, setting
from ..painting import Sampling

DEFAULT_TEMPLATE = "a photo of a {} and a {}"
_LARGEST_SIDE = 16384


def _samplers() -> tuple[str, ...]:
    return tuple(comfy.samplers.KSampler.SAMPLERS)


def _schedulers() -> tuple[str, ...]:
    return tuple(comfy.samplers.KSampler.SCHEDULERS)


@dataclass(frozen=True)
class CollectionConfig:
    """What to paint, and how; the fields are the node's inputs."""

    pairs: int = setting(
        100,
        "whole number",
        "Different pairs of nouns, drawn so that all nouns occur equally often; all there are, where there are fewer. "
        "80 nouns have 3160 pairs; the paper does not say how many it used",
        within=(1, 100_000),
        changes_result=False,
    )
    images_per_pair: int = setting(
        20,
        "whole number",
        "Pictures of each pair; every second one has the nouns in the other order, so give an even number. Raise it "
        "later to add pictures",
        within=(1, 10_000),
        changes_result=False,
    )
    steps: int = setting(20, "whole number", "Sampling steps of a picture", within=(1, 1000), paper="50")
    cfg: float = setting(7.5, "number", "Classifier-free guidance", within=(0, 100), step=0.1, paper="7.5")
    sampler_name: str = setting("dpmpp_2m", "choice", "Sampler, as in KSampler", choices=_samplers, paper="DDIM")
    scheduler: str = setting("normal", "choice", "Noise schedule, as in KSampler", choices=_schedulers)
    width: int = setting(
        512, "whole number", "Width of the pictures in pixels", within=(64, _LARGEST_SIDE), multiple=8, paper="512"
    )
    height: int = setting(
        512, "whole number", "Height of the pictures in pixels", within=(64, _LARGEST_SIDE), multiple=8, paper="512"
    )
    seed: int = setting(
        0,
        "whole number",
        "Seed of the pairs and of all pictures; each picture has its own, derived from it",
        within=(0, 2**64 - 1),
        seed=True,
    )
    batch_size: int = setting(
        4,
        "whole number",
        "Pictures painted at once. Lower it when memory runs out",
        within=(1, 64),
        rare=True,
        optional=True,
        changes_result=False,
    )
    template: str = setting(
        DEFAULT_TEMPLATE,
        "text",
        "The prompt, with {} in the places of the two nouns. The predictor reads its nouns in the same sentence",
        paper="{} and {}",
        rare=True,
        optional=True,
    )

    def __post_init__(self) -> None:
        check_settings(self)
        rest = self.template.replace("{}", "")
        if self.template.count("{}") != 2 or "{" in rest or "}" in rest:
            raise UserError(
                f"template is {quoted(self.template)}; write {{}} exactly twice, in the places of the two nouns, as in "
                f"{quoted(DEFAULT_TEMPLATE)}."
            )

    @property
    def sampling(self) -> Sampling:
        """How the host's sampler is set."""
        return Sampling(self.steps, self.cfg, self.sampler_name, self.scheduler)
