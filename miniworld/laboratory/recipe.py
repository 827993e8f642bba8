"""How the miniature world is used: words, and the parameters chosen on the instances that are for choosing.

``bench/evidence.py`` shows how they were chosen and what they give on the other instances.
"""

from __future__ import annotations

from ..world.drawing import NOUNS
from ..world.scenes import CATEGORY

TEMPLATES = ("a photo of a {}", "a {}", "the {}", "a picture of a {}", "{}", "a photo of one {} alone")
"""Sentences to learn from; their words are those that the miniature model knows."""
TEMPLATES_WITH_CLASS = tuple(template.replace("{}", "{} {class}") for template in TEMPLATES)
"""For Custom Diffusion and DreamBooth, whose word stands before the class noun."""
ANCHOR_WORDS = (*NOUNS, *sorted(set(CATEGORY.values())))
INVERSION = {
    "steps": 300,
    "batch_size": 4,
    "learning_rate": 0.01,
    "num_vectors": 3,
    "anchor_weight": 0.1,
    "anchor_reduction": "sum",
}
TUNING = {
    "Custom Diffusion": {
        "steps": 300,
        "batch_size": 2,
        "learning_rate": 1e-4,
        "token_learning_rate": 0.01,
        "anchor_weight": 0.1,
        "anchor_reduction": "sum",
    },
    "DreamBooth": {
        "steps": 400,
        "batch_size": 1,
        "learning_rate": 1e-4,
        "token_learning_rate": 0.005,
        "anchor_weight": 0.1,
        "anchor_reduction": "sum",
    },
}
MASKED = True
"""Whether the reconstruction is weighed with the object masks."""
PAINTING = {"steps": 20, "cfg": 5.0, "sampler_name": "dpmpp_2m", "scheduler": "normal"}
GUIDANCE = {
    "strength": 30.0,
    "threshold": 0.2,
    "max_iterations": 5,
    "guided_steps": 5,
    "loss": "squared",
    "blocks": "middle and first up",
}
