"""A picture of the word while it is learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from PIL import Image

from ...basics.errors import remark
from ...learning.concept import Concept
from ...learning.inversion import Subject
from ...learning.settings import InversionConfig
from ..painting import Painter, Sampling, as_image
from ..text.encoder import as_conditioning
from ..text.sentences import TemplateEncoder
from .session import DiffusionSession

if TYPE_CHECKING:
    from comfy.sd import CLIP

PREVIEW = Sampling(12, 6.0)
"""Enough steps to recognise the thing; a preview must not cost more than a few training steps."""


def preview_of(
    painter: Painter,
    session: DiffusionSession,
    clip: CLIP,
    config: InversionConfig,
    concept: Concept,
    subject: Subject,
) -> Callable[[], Image.Image | None]:
    """Return what paints a concept with the session's own model, whose trained weights it shows.

    It returns None, and says so once, where the device has no room for the autoencoder beside the training.
    """
    encoder = TemplateEncoder(clip, [config.preview_prompt], concept.num_vectors, concept.superclass)
    told = False

    def preview() -> Image.Image | None:
        nonlocal told
        # The networks in training stay where they are.
        if not painter.has_room():
            if not told:
                remark("No previews: the device has no room for the autoencoder beside the training.")
            told = True
            return None
        with torch.no_grad():
            # Those of the last step are from before its update.
            session.weights.place_casts()
            condition = encoder(0, subject.token.vectors)
        return as_image(painter.paint_batch(as_conditioning(condition), config.seed)[0])

    return preview
