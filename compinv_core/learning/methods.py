"""The methods: what each trains beside the word, and what comes out of it.

All three minimise ``(1 − λ)·L_rec + w·L_prior + λ·L_anc`` (Eq. 10; `inversion.Inversion`), textual inversion with
w = 0. Their defaults are in `settings`; which weights of a diffusion model are the keys and values is the family's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Method:
    """A way of learning a concept.

    Parameters
    ----------
    name, node_name : str
        For files and logs, and as the person sees it.
    trains : {"nothing", "keys and values", "everything"}
        Of the diffusion model, beside the word; a key of the family's trained weights.
    outcome : {"nothing", "differences", "values"}
        What the trained model is made of: patches that add the full difference, which is a LoRA file, too; or patches
        that set the values, with a LoRA cut down to a rank.
    folder_suffix : str
        Of the run's folder.
    """

    name: str
    node_name: str
    trains: Literal["nothing", "keys and values", "everything"] = "nothing"
    outcome: Literal["nothing", "differences", "values"] = "nothing"
    folder_suffix: str = ""

    @property
    def trains_model(self) -> bool:
        """Whether the diffusion model is trained, too."""
        return self.trains != "nothing"


TEXTUAL_INVERSION = Method("textual inversion", "Train Concept")
CUSTOM_DIFFUSION = Method(
    "Custom Diffusion", "Train Custom Diffusion", "keys and values", "differences", ".custom-diffusion"
)
DREAMBOOTH = Method("DreamBooth", "Train DreamBooth", "everything", "values", ".dreambooth")
