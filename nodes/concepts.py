"""The nodes around a concept: photos of a further one for joint training, and saving a learned word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io, ui

from ..compinv_core.basics.names import check_name
from ..compinv_core.basics.settings import read_settings
from ..compinv_core.host.folders import embedding_path
from ..compinv_core.learning.concept import Concept as ConceptPayload
from ..compinv_core.learning.concept import check_distinct_names
from ..compinv_core.learning.embedding_file import write_concept
from .schema import CATEGORY, Concept, ConceptImages, setting_inputs


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
                )
            ],
        )

    @classmethod
    def execute(cls, concept, filename) -> io.NodeOutput:
        name = check_name(filename, "filename") if filename.strip() else concept.name
        named = replace(concept, name=name)
        write_concept(named, embedding_path(name))
        return io.NodeOutput(named.prompt_word, ui=ui.PreviewText(f"Write {named.prompt_word} in a prompt."))


def concept_of(inputs: dict[str, list[Any]]) -> ConceptPayload:
    """Return the concept in the inputs of a list node, whose widgets have lists of one value."""
    single = {name: values[0] for name, values in inputs.items() if values}
    words = read_settings(ConceptPayload, single)
    return ConceptPayload.to_learn(
        words, inputs["images"], inputs.get("mask") or None, inputs.get("class_images") or None
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


NODES = [AddConceptImages, SaveConcept]
