"""How the miniature world is used: words, and the parameters chosen on the own things that are for choosing.

`bench.frontier` shows what other ways of holding a word give.
"""

from __future__ import annotations

from ..world.captions import CATEGORY
from ..world.drawing import NOUNS

TEMPLATES = ("a photo of a {}", "a {}", "the {}", "a picture of a {}", "{}", "a photo of one {} alone")
"""Sentences to learn from; their words are those that the miniature model knows."""
TEMPLATES_WITH_CLASS = tuple(template.replace("{}", "{} {class}") for template in TEMPLATES)
"""The same with the word before its class noun."""
ANCHOR_WORDS = (*NOUNS, *sorted(set(CATEGORY.values())))
INVERSION = {
    "steps": 100,
    "batch_size": 4,
    "learning_rate": 0.012,
    "num_vectors": 1,
    "hold": "radius",
    "radius": 0.7,
}
ANCHOR_LOSS = {"hold": "anchor loss", "anchor_weight": 0.003, "anchor_reduction": "sum"}
"""The paper's way of holding a word instead of the radius, ten times as strong, since trainings here are short."""
TUNING = {
    "Custom Diffusion": {
        "steps": 100,
        "batch_size": 2,
        "learning_rate": 1e-4,
        "token_learning_rate": 0.01,
        "hold": "radius",
        "radius": 0.7,
    },
    "DreamBooth": {
        "steps": 100,
        "batch_size": 1,
        "learning_rate": 1e-4,
        "token_learning_rate": 0.005,
        "hold": "radius",
        "radius": 0.7,
    },
}
PAINTING = {"steps": 12, "cfg": 5.0, "sampler_name": "dpmpp_2m", "scheduler": "normal"}
GUIDANCE = {
    "strength": 30.0,
    "threshold": 0.2,
    "max_iterations": 5,
    "guided_steps": 5,
    "loss": "squared",
    "blocks": "middle and first up",
}
