"""Whether a prompt has learned words as they were trained, by what their files say of the training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...basics.errors import quoted, remark
from ...basics.tensor_file import read_metadata
from ...learning.embedding_file import trained_sentences
from ...words.sentences import other_wording
from .listening import file_of
from .reading import PromptReading

if TYPE_CHECKING:
    from comfy.sd import CLIP


def warn_of_wording(clip: CLIP, reading: PromptReading, node_name: str) -> None:
    """Remark on words of ours that a prompt has otherwise than they were trained."""
    encoder = reading.encoders[0]
    for name in dict.fromkeys(embedding.name for embedding in encoder.embeddings):
        path = file_of(name, encoder.encoder.tokenizer(clip))
        metadata = read_metadata(path) if path else {}
        sentences = trained_sentences(metadata)
        if fault := other_wording(reading.text, name, metadata.get("superclass", ""), sentences):
            remark(f"{node_name}: the word {quoted(name)} {fault}.")
