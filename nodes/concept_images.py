"""The node that adds a further concept to a joint training."""

from __future__ import annotations

from comfy_api.latest import io

from ..compinv_core.concept_images import ConceptImages as ConceptImagesPayload
from .sockets import ConceptImages
from .training_inputs import concept_inputs, image_inputs

_CATEGORY = "compositional inversion"


class AddConceptImages(io.ComfyNode):
    """Photos of a further concept, to be learned together with others."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvConceptImages",
            display_name="Concept Images",
            category=_CATEGORY,
            description=(
                "Photos of a concept with its name and class, for learning it together with the one that the training "
                "node names. Chain several through previous."
            ),
            search_aliases=["joint training", "multiple concepts", "multi concept", "concept list"],
            is_input_list=True,
            inputs=[
                *image_inputs(),
                *concept_inputs(),
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
    def execute(
        cls, images, name, superclass, init_word, num_vectors, mask=None, previous=None, class_images=None
    ) -> io.NodeOutput:
        payload = ConceptImagesPayload(
            tuple(images),
            name[0],
            superclass[0],
            init_word[0],
            num_vectors[0],
            tuple(mask) if mask else None,
            previous[0] if previous else None,
            tuple(class_images) if class_images else None,
        )
        return io.NodeOutput(payload)


NODES = [AddConceptImages]
