"""One picture of the whole world: ``python -m miniworld.laboratory.overview docs/images/world.png``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ..world.dataset import training_scene
from ..world.drawing import NOUNS
from ..world.instances import INSTANCES, photos
from ..world.named import named_things
from ..world.scenes import render_at_home, render_scene
from .contact_sheet import Panel, stacked

COLUMNS = 8


def overview() -> Image.Image:
    """The nouns, scenes of two and three, things with names, and the own things, as the renderer draws them."""
    rng = np.random.default_rng(4)
    names = list(NOUNS)
    scenes = [
        training_scene(rng, [names[i] for i in rng.choice(len(names), 2 + k % 2, replace=False)]) for k in range(16)
    ]
    named = [render_at_home(things[0].look, things[0].home, rng) for things in named_things().values()]
    panels = [
        Panel("sixteen nouns", "", [render_scene(rng, [noun]).image for noun in NOUNS]),
        Panel("scenes of two and three", "", [scene.image for scene in scenes]),
        Panel("things with names, at home", "", [scene.image for scene in named]),
        Panel("own things, each with its wallpaper", "", [photos(instance)[0][0] for instance in INSTANCES.values()]),
    ]
    return stacked(panels, COLUMNS)


if __name__ == "__main__":
    overview().save(Path(sys.argv[1]))
