"""What a collection of layouts paints, and how: the settings of Collect Layouts."""

from __future__ import annotations

from dataclasses import dataclass

import comfy.samplers

from ..checks import check_choice, check_range
from ..errors import UserError

DEFAULT_TEMPLATE = "a photo of a {} and a {}"
SAMPLERS: tuple[str, ...] = tuple(comfy.samplers.KSampler.SAMPLERS)
SCHEDULERS: tuple[str, ...] = tuple(comfy.samplers.KSampler.SCHEDULERS)
PIXELS_PER_CELL = 8


@dataclass(frozen=True)
class CollectionConfig:
    """What to paint, and how.

    Attributes
    ----------
    pairs : int
        Different pairs of nouns; all there are, where there are fewer.
    images_per_pair : int
        Every second one has the nouns swapped.
    steps, cfg, sampler_name, scheduler
        Of the host's sampler.
    width, height : int
        Pixels, multiples of 8.
    seed : int
        Of the choice of pairs and of all pictures.
    batch_size : int
        Pictures painted at once.
    template : str
        The prompt, with ``{}`` in the places of the two nouns.
    """

    pairs: int
    images_per_pair: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    width: int
    height: int
    seed: int
    batch_size: int = 4
    template: str = DEFAULT_TEMPLATE

    def check(self) -> None:
        """Refuse values out of their range.

        Raises
        ------
        UserError
        """
        for name in ("pairs", "images_per_pair", "steps", "batch_size"):
            check_range(name, getattr(self, name), 1)
        check_choice("sampler_name", self.sampler_name, SAMPLERS)
        check_choice("scheduler", self.scheduler, SCHEDULERS)
        for name in ("width", "height"):
            if getattr(self, name) < 64 or getattr(self, name) % PIXELS_PER_CELL:
                raise UserError(f"{name} is {getattr(self, name)}; give a multiple of {PIXELS_PER_CELL}, at least 64.")
        check_template(self.template)


def check_template(template: str) -> None:
    """Refuse a prompt that does not hold the places of exactly two nouns.

    Parameters
    ----------
    template : str

    Raises
    ------
    UserError
    """
    if template.count("{}") != 2 or template.replace("{}", "").count("{") or template.replace("{}", "").count("}"):
        raise UserError(
            f'template is "{template}"; write {{}} exactly twice, in the places of the two nouns, as in '
            f'"{DEFAULT_TEMPLATE}".'
        )
