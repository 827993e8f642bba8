"""The nodes that learn a concept from photos and save it as an embedding."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io, ui

from ..compinv_core.concept import check_name
from ..compinv_core.embedding_file import write_concept
from ..compinv_core.host.folders import embedding_path, run_folder
from ..compinv_core.host.training import train_concept
from ..compinv_core.inversion_config import InversionConfig
from .sockets import Concept
from .training_inputs import concept_inputs, read_config, run_inputs, sockets, training_inputs

_CATEGORY = "compositional inversion"


class TrainConcept(io.ComfyNode):
    """Textual inversion, with semantic inversion where anchors are connected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvTrainConcept",
            display_name="Train Concept",
            category=_CATEGORY,
            description=(
                "Learns a word for your own thing from a few photos. With anchors the word stays among those that the "
                "model can combine; without them this is plain textual inversion. Writes the embedding file NAME when "
                "done; connect prompt_word to the prompt, so that a retrained word is read anew."
            ),
            search_aliases=["textual inversion", "train embedding", "semantic inversion", "compositional inversion"],
            is_input_list=True,
            is_output_node=True,
            inputs=[*sockets(), *concept_inputs(), *training_inputs(), *run_inputs()],
            outputs=[
                Concept.Output("concept", display_name="concept", tooltip="For Save Concept."),
                io.String.Output(
                    "prompt_word",
                    display_name="prompt_word",
                    tooltip="embedding:NAME, to be written into a prompt. Wire it, rather than typing it: the host "
                    "keeps encoded prompts by their text and would not read a retrained file of the same name.",
                ),
                io.LossMap.Output("loss", display_name="loss", tooltip="Loss of every step, for Plot Loss Graph."),
            ],
        )

    @classmethod
    def execute(cls, model, clip, vae, images, anchors=None, mask=None, **widgets) -> io.NodeOutput:
        # As a list node it gets all photos of a list at once, instead of being run for each; the rest has one value.
        config = read_config(InversionConfig, widgets)
        result = train_concept(
            model[0],
            clip[0],
            vae[0],
            images,
            config,
            anchors=anchors[0] if anchors else None,
            mask=mask or None,
            run_dir=run_folder(config.name),
            embedding_path=embedding_path(config.name),
        )
        return io.NodeOutput(result.concept, result.concept.prompt_word, {"loss": result.losses})


class SaveConcept(io.ComfyNode):
    """Writes a concept among the host's embeddings."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvSaveConcept",
            display_name="Save Concept",
            category=_CATEGORY,
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


NODES = [TrainConcept, SaveConcept]
