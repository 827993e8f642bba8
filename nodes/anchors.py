"""The node that loads the nouns a learned word is kept close to."""

from __future__ import annotations

from comfy_api.latest import io

from ..compinv_core.host.family import Family
from ..compinv_core.host.folders import anchor_list_path, anchor_lists
from ..compinv_core.host.text.encoder import load_anchors
from ..compinv_core.words.nouns import COCO80, coco80, merge_words, read_words, split_words
from .schema import CATEGORY, Anchors

_ONLY_EXTRA = "none"
_BUILT_IN = (COCO80, _ONLY_EXTRA)


class LoadAnchors(io.ComfyNode):
    """Looks nouns up in the text encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvLoadAnchors",
            display_name="Load Anchors",
            category=CATEGORY,
            description="Ordinary nouns that a learned word may lean on, with their token embeddings.",
            search_aliases=[
                "semantic inversion",
                "anchor words",
                "coco nouns",
                "compositional inversion",
                "vocabulary",
            ],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder that the concept will be trained with (SD 1)."),
                io.Combo.Input(
                    "vocabulary",
                    options=[COCO80, *(name for name in anchor_lists() if name not in _BUILT_IN), _ONLY_EXTRA],
                    default=COCO80,
                    tooltip="List of nouns. coco80 is built in and is what the paper uses; your own lists are text "
                    "files in models/compinv/anchors, one noun per line. none takes only extra_words and base.",
                ),
                io.String.Input(
                    "extra_words",
                    default="",
                    tooltip="Further nouns, separated by commas, such as: kitten, tabby cat. Nouns of several words "
                    "count as the mean of their tokens.",
                ),
                Anchors.Input("base", optional=True, tooltip="Anchors to add to; duplicates are folded."),
            ],
            outputs=[Anchors.Output("anchors", display_name="anchors", tooltip="For Train Concept.")],
        )

    @classmethod
    def fingerprint_inputs(cls, vocabulary, **inputs) -> str:
        # The file can change between runs. A name that comes over a link is not known here.
        return "\n".join(_listed_words(vocabulary)) if vocabulary else ""

    @classmethod
    def execute(cls, clip, vocabulary, extra_words, base=None) -> io.NodeOutput:
        Family.of("Load Anchors", clip=clip)
        words = merge_words(_listed_words(vocabulary), split_words(extra_words))
        if base is not None and not words:
            return io.NodeOutput(base)
        anchors = load_anchors(clip, words)
        return io.NodeOutput(anchors if base is None else base.merged(anchors))


def _listed_words(vocabulary: str) -> tuple[str, ...]:
    if vocabulary == _ONLY_EXTRA:
        return ()
    return coco80() if vocabulary == COCO80 else read_words(anchor_list_path(vocabulary))


NODES = [LoadAnchors]
