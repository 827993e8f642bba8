"""How the miniature world is used: words, and the parameters chosen on the instances that are for choosing.

``bench/evidence.py`` shows how they were chosen and what they give on the other instances.
"""

from __future__ import annotations

from .drawing import NOUNS
from .scenes import CATEGORY

TEMPLATES = ("a photo of a {}", "a {}", "the {}", "a picture of a {}", "{}", "a photo of one {} alone")
"""Sentences to learn from; their words are those that the miniature model knows."""
ANCHOR_WORDS = (*NOUNS, *sorted(set(CATEGORY.values())))
INVERSION = {
    "steps": 300,
    "batch_size": 4,
    "learning_rate": 0.01,
    "anchor_weight": 0.2,
    "anchor_reduction": "sum",
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
