"""The nodes around a concept: photos of a further one, saving a word, looking at one, and repairing one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io, ui

from ..compinv_core.basics.names import check_name
from ..compinv_core.basics.report import write_report
from ..compinv_core.basics.settings import read_settings
from ..compinv_core.host.folders import embedding_path, report_folder
from ..compinv_core.host.graph.remarks import remarked
from ..compinv_core.host.semantic.words import (
    ADJUST_NODE,
    INSPECT_NODE,
    NO_EMBEDDING,
    adjust_word,
    chosen_word,
    embedding_fingerprint,
    embedding_names,
    inspect_word,
)
from ..compinv_core.learning.concept import Concept as ConceptPayload
from ..compinv_core.learning.concept import check_distinct_names
from ..compinv_core.learning.embedding_file import write_concept
from .schema import CATEGORY, Anchors, Concept, ConceptImages, Report, setting_inputs


class AddConceptImages(io.ComfyNode):
    """Photos of a further concept, to be learned together with others."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvConceptImages",
            display_name="Concept Images",
            category=CATEGORY,
            description=(
                "Photos of a concept with its name and class, for learning it together with the one that the training "
                "node names. Chain several through previous."
            ),
            search_aliases=["joint training", "multiple concepts", "multi concept", "concept list"],
            is_input_list=True,
            inputs=[
                image_input(),
                mask_input(),
                *setting_inputs(ConceptPayload, "concept"),
                ConceptImages.Input(
                    "previous",
                    optional=True,
                    tooltip="Another Concept Images; all of the chain are learned together, and share the steps.",
                ),
                io.Image.Input(
                    "class_images",
                    optional=True,
                    tooltip="Pictures of this concept's class, as many as num_class_images of the training node and of "
                    "the size of the photos. Not connected: the model makes them before the training.",
                ),
            ],
            outputs=[
                ConceptImages.Output(
                    "concept_images",
                    display_name="concept_images",
                    tooltip="For more_concepts of a training node, or previous of another Concept Images.",
                )
            ],
        )

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        previous = inputs["previous"][0] if inputs.get("previous") else ()
        chain = (*previous, concept_of(inputs))
        check_distinct_names(chain)
        return io.NodeOutput(chain)


class SaveConcept(io.ComfyNode):
    """Writes a concept among the host's embeddings."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvSaveConcept",
            display_name="Save Concept",
            category=CATEGORY,
            description="Writes models/embeddings/FILENAME.safetensors, which ComfyUI, diffusers and A1111 read.",
            search_aliases=["save embedding", "textual inversion", "export embedding"],
            is_output_node=True,
            inputs=[
                Concept.Input("concept", tooltip="From Train Concept."),
                io.String.Input(
                    "filename",
                    default="",
                    tooltip="File name without ending: letters, digits, - and _. Empty takes the concept's name. "
                    "An embedding of the same name that this pack did not make is never overwritten.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "prompt_word", display_name="prompt_word", tooltip="embedding:FILENAME, to be wired into a prompt."
                ),
                phrase_output(),
            ],
        )

    @classmethod
    def execute(cls, concept, filename) -> io.NodeOutput:
        name = check_name(filename, "filename") if filename.strip() else concept.name
        named = replace(concept, name=name)
        write_concept(named, embedding_path(name))
        text = ui.PreviewText(f"Write {named.prompt_word} in a prompt.")
        return io.NodeOutput(named.prompt_word, named.phrase, ui=text)


class _WordNode(io.ComfyNode):
    """A node on an embedding file, run again when the file's content changes."""

    @classmethod
    def fingerprint_inputs(cls, embedding, **inputs) -> tuple:
        return (embedding, embedding_fingerprint(embedding) if embedding else None)


class InspectEmbedding(_WordNode):
    """A word to what can be said of it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvInspectEmbedding",
            display_name=INSPECT_NODE,
            category=CATEGORY,
            description=(
                "Says where a word stands: which nouns it leans on, how far it has left them, and whether it should "
                "combine with other things. Any embedding of yours will do."
            ),
            search_aliases=["compinv", "embedding info", "textual inversion", "analyze embedding", "nearest token"],
            is_output_node=True,
            inputs=[
                *_word_inputs("The class noun, such as cat. Empty takes the one in the file, if there is one."),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Also measure how the word shares the model's attention with other nouns: composition is 1 "
                    "where it does as its class noun does, towards 0 where it takes over.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="text", tooltip="The verdict, and a line for each vector."),
                io.Image.Output(
                    display_name="map",
                    tooltip="Directions only: the vocabulary as a cloud, the anchors by name, and the word.",
                ),
                Report.Output(display_name="report", tooltip="The numbers; also written to output/compinv/reports."),
            ],
        )

    @classmethod
    @remarked
    def execute(cls, clip, embedding, superclass="", anchors=None, concept=None, model=None) -> io.NodeOutput:
        word = chosen_word(clip, embedding, concept, INSPECT_NODE)
        found, picture, report = inspect_word(clip, word, anchors, superclass, model)
        write_report(report, report_folder())
        return io.NodeOutput(found.text, picture, report, ui=ui.PreviewText(found.text))


class AdjustEmbedding(_WordNode):
    """A word to one that combines better, without photos."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvAdjustEmbedding",
            display_name=ADJUST_NODE,
            category=CATEGORY,
            description=(
                "Repairs a word that crowds out its neighbours, in a second and without photos: turns it towards its "
                "nouns and gives it a word's length. Writes a new embedding file; the old one is kept."
            ),
            search_aliases=["compinv", "fix embedding", "repair embedding", "textual inversion", "normalize embedding"],
            is_output_node=True,
            inputs=[
                *_word_inputs(
                    "The class noun, such as cat, which it is turned to above all. Empty takes the one in the file, if "
                    "there is one."
                ),
                io.Float.Input(
                    "strength",
                    default=0.4,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the angle to its nouns that is turned away, 0 to 1. 0 keeps the direction, 1 is "
                    "an ordinary noun. More combines better and looks less like your photos.",
                ),
                io.String.Input(
                    "filename",
                    default="",
                    tooltip="Name of the new embedding, without ending: letters, digits, - and _. Empty takes the old "
                    "name with -adjusted.",
                ),
                io.Float.Input(
                    "norm",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="Share of the way to the class noun's length, 0 to 1, on a logarithmic scale.",
                ),
            ],
            outputs=[
                Concept.Output(display_name="concept", tooltip="The repaired word, for Save Concept or Inspect."),
                io.String.Output(display_name="prompt_word", tooltip="embedding:FILENAME, to be wired into a prompt."),
            ],
        )

    @classmethod
    @remarked
    def execute(
        cls, clip, embedding, superclass, strength, filename, anchors=None, concept=None, norm=1.0
    ) -> io.NodeOutput:
        word = chosen_word(clip, embedding, concept, ADJUST_NODE)
        repaired = adjust_word(clip, word, anchors, superclass, strength, norm, filename)
        text = ui.PreviewText(f"Write {repaired.prompt_word} in a prompt.")
        return io.NodeOutput(repaired, repaired.prompt_word, ui=text)


def _word_inputs(superclass_tooltip: str) -> list[io.Input]:
    return [
        io.Clip.Input("clip", tooltip="The text encoder that the word is for."),
        io.Combo.Input(
            "embedding",
            options=embedding_names(),
            default=NO_EMBEDDING,
            tooltip="A file of models/embeddings, yours or anybody's; only its numbers are read.",
        ),
        Anchors.Input(
            "anchors",
            optional=True,
            tooltip="Nouns that the word may lean on, from Load Anchors. Not connected: its class noun alone.",
        ),
        Concept.Input("concept", optional=True, tooltip="A word straight from a training, in the place of embedding."),
        io.String.Input("superclass", default="", tooltip=superclass_tooltip),
    ]


def concept_of(inputs: dict[str, list[Any]]) -> ConceptPayload:
    """Return the concept in the inputs of a list node, whose widgets have lists of one value."""
    single = {name: values[0] for name, values in inputs.items() if values}
    words = read_settings(ConceptPayload, single)
    return ConceptPayload.to_learn(
        words, inputs["images"], inputs.get("mask") or None, inputs.get("class_images") or None
    )


def phrase_output() -> io.String.Output:
    """Return the word before its class noun."""
    return io.String.Output(
        "phrase",
        display_name="phrase",
        tooltip="embedding:NAME and the class noun behind it, as a phrase of a prompt and of a layout; for a word that "
        "was trained with its class noun.",
    )


def image_input() -> io.Image.Input:
    """Return the photos of a concept."""
    return io.Image.Input(
        "images",
        tooltip="Photos of the concept, three to five, all of one size (the paper: 512x512). Sides that are no "
        "multiple of 8 pixels are cropped at the centre.",
    )


def mask_input() -> io.Mask.Input:
    """Return the masks of a concept."""
    return io.Mask.Input(
        "mask",
        optional=True,
        tooltip="One mask per photo, of the same size, white (1) where the concept is. The background then hardly "
        "enters the word. Load Image gives a cut-out's mask white in the background: put Invert Mask between.",
    )


NODES = [AddConceptImages, SaveConcept, InspectEmbedding, AdjustEmbedding]
