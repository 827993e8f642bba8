"""One picture of the whole world: ``python -m miniworld.laboratory.overview docs/images/world.png``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ..world.drawing import NOUNS
from ..world.instances import INSTANCES, photos
from ..world.scenes import render_scene
from .contact_sheet import Panel, stacked

COLUMNS = 8


def overview() -> Image.Image:
    """The nouns, some scenes of two, and the own things, as the renderer draws them."""
    rng = np.random.default_rng(4)
    pairs = np.array_split(rng.permutation(list(NOUNS)), 8)
    panels = [
        Panel("sixteen nouns", "", [render_scene(rng, [noun]).image for noun in NOUNS]),
        Panel("scenes of two", "", [render_scene(rng, [str(noun) for noun in pair]).image for pair in pairs]),
        Panel("own things, each with its wallpaper", "", [photos(instance)[0][0] for instance in INSTANCES.values()]),
    ]
    return stacked(panels, COLUMNS)


if __name__ == "__main__":
    overview().save(Path(sys.argv[1]))
