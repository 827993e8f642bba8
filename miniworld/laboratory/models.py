"""The miniature world on the real host, in process: its model, its own things, its layout predictor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ..host import start_in_process
from ..networks.checkpoint import CHECKPOINT_NAME, assemble
from ..networks.compact import leave_out_zeros, multiply_in_bfloat16, text_model_of
from ..world.instances import Instance, photos
from ..world.placing import SIDE
from .habits import Habits
from .recipe import ANCHOR_WORDS, PAINTING, TEMPLATES, TEMPLATES_WITH_CLASS
from .things import Thing
from .workbench import Box, Workbench


class Laboratory(Workbench):
    """One host with the miniature model loaded, its zeros left out.

    Parameters
    ----------
    base
        Folder of the host's models and outputs; learned concepts are kept there and reused.
    bfloat16
        Multiply in bfloat16 in the diffusion network.
    card
        Compute on a graphics card, not on the CPU.
    """

    def __init__(self, base: Path, bfloat16: bool = False, card: bool = False) -> None:
        base = base.resolve()
        start_in_process(base, card)
        import comfy.sd
        import comfy.utils

        comfy.utils.set_progress_bar_enabled(False)
        checkpoint = assemble(base / "models" / "checkpoints" / CHECKPOINT_NAME)
        with torch.inference_mode():
            model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
                str(checkpoint), embedding_directory=[str(base / "models" / "embeddings")]
            )
        leave_out_zeros(model.model.diffusion_model, text_model_of(clip))
        if bfloat16:
            multiply_in_bfloat16(model.model.diffusion_model)
        super().__init__(
            base, (model, clip, vae), Habits(SIDE, TEMPLATES, TEMPLATES_WITH_CLASS, ANCHOR_WORDS, dict(PAINTING))
        )

    def predicted_boxes(self, phrases: Sequence[str]) -> tuple[Box, ...]:
        """Boxes from the layout predictor that comes with the miniature world."""
        from compinv_core.host.folders import MINIATURE_WORLD
        from compinv_core.host.layouts.prediction import predict_layout
        from compinv_core.host.layouts.predictor_choice import chosen_predictor

        with torch.inference_mode():
            layout, _ = predict_layout(chosen_predictor(MINIATURE_WORLD), self.clip, tuple(phrases), SIDE, SIDE)
        return layout.boxes


def as_thing(instance: Instance) -> Thing:
    """An own thing of the miniature world with its photos and their masks."""
    pictures, masks = photos(instance)
    return Thing(instance.name, instance.noun, torch.from_numpy(pictures).float().div(255), torch.from_numpy(masks))
