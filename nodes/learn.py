"""The nodes that learn concepts from photos: textual inversion, Custom Diffusion, DreamBooth."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..compinv_core.basics.settings import read_settings
from ..compinv_core.host.folders import embedding_folder, lora_path, run_folder
from ..compinv_core.host.graph.remarks import remarked
from ..compinv_core.host.graph.training import followed
from ..compinv_core.host.learning.train import Places, TrainingResult, train_concepts
from ..compinv_core.learning.concept import Concept as ConceptPayload
from ..compinv_core.learning.settings import InversionConfig
from ..compinv_core.learning.tuning_settings import CustomDiffusionConfig, DreamBoothConfig
from .concepts import concept_of, image_input, mask_input, phrase_output
from .schema import CATEGORY, MODEL, Anchors, Concept, ConceptImages, setting_inputs


class TrainConcept(io.ComfyNode):
    """Textual inversion, with semantic inversion where anchors are connected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvTrainConcept",
            display_name=InversionConfig.method.node_name,
            category=CATEGORY,
            description=(
                "Learns a word for your own thing from a few photos. With anchors the word stays among those that the "
                "model can combine; without them this is plain textual inversion. Writes the embedding file NAME when "
                "done; connect prompt_word to the prompt, so that a retrained word is read anew."
            ),
            search_aliases=["textual inversion", "train embedding", "semantic inversion", "compositional inversion"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                *_sockets(),
                *setting_inputs(ConceptPayload, "concept"),
                *setting_inputs(InversionConfig, "training", "run", "hold", "memory", "choice"),
            ],
            outputs=[
                Concept.Output("concept", display_name="concept", tooltip="For Save Concept."),
                io.String.Output(
                    "prompt_word",
                    display_name="prompt_word",
                    tooltip="embedding:NAME, to be written into a prompt. Wire it, rather than typing it: the host "
                    "keeps encoded prompts by their text and would not read a retrained file of the same name.",
                ),
                _loss_output(),
                phrase_output(),
            ],
        )

    @classmethod
    @remarked
    def execute(cls, **inputs) -> io.NodeOutput:
        result = _train(InversionConfig, inputs)
        (concept,) = result.concepts
        return io.NodeOutput(concept, concept.prompt_word, result.loss_map, concept.phrase, **_told(result))


class TrainCustomDiffusion(io.ComfyNode):
    """Custom Diffusion, with semantic inversion where anchors are connected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _tuning_schema(
            "CompInvTrainCustomDiffusion",
            CustomDiffusionConfig,
            "Learns a word for your own thing, and the keys and values of the model's cross-attention. Writes the "
            "embedding file NAME and the LoRA file NAME when done; model is the trained model for this graph.",
            ["custom diffusion", "multi-concept customization", "cross attention", "fine-tune"],
            "The full difference of the model, or the factors that train_rank trained, for Save LoRA Weights. The file "
            "NAME in models/loras holds the same.",
        )

    @classmethod
    @remarked
    def execute(cls, **inputs) -> io.NodeOutput:
        return _output(_train(CustomDiffusionConfig, inputs))


class TrainDreamBooth(io.ComfyNode):
    """DreamBooth, with semantic inversion where anchors are connected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _tuning_schema(
            "CompInvTrainDreamBooth",
            DreamBoothConfig,
            "Learns a word for your own thing, and the whole diffusion model. Writes the embedding file NAME when "
            "done; keep model with Save Checkpoint, or its low-rank form with Save LoRA Weights.",
            ["dreambooth", "fine-tune", "full finetune", "train checkpoint"],
            "The trained difference at rank lora_rank, or the factors that train_rank trained: an ordinary LoRA, for "
            "Save LoRA Weights.",
        )

    @classmethod
    @remarked
    def execute(cls, **inputs) -> io.NodeOutput:
        return _output(_train(DreamBoothConfig, inputs))


def _train(kind: type[InversionConfig], inputs: dict[str, list[Any]]) -> TrainingResult:
    """Train with the values of a list node: it gets all photos of a list at once; everything else has one value."""
    single = {name: values[0] for name, values in inputs.items() if values}
    config = kind(**read_settings(kind, single))
    concepts = (concept_of(inputs), *single.get("more_concepts", ()))
    # Concepts that are learned together share a run, and a LoRA file.
    name = "+".join(concept.name for concept in concepts)
    run = run_folder(name, config.method.folder_suffix)
    lora = lora_path(name) if config.method.outcome == "differences" else None
    places = Places(run, embedding_folder(), lora)
    models = (single["model"], single["clip"], single["vae"])
    with followed(run) as listener:
        return train_concepts(*models, config, concepts, single.get("anchors"), places, listener)


def _output(result: TrainingResult) -> io.NodeOutput:
    outputs = (result.model, list(result.concepts), result.loss_map, result.lora, result.prompt_words)
    return io.NodeOutput(*outputs, **_told(result))


def _told(result: TrainingResult) -> dict[str, Any]:
    """What is shown on the node, if there is anything to say."""
    return {"ui": ui.PreviewText(result.told)} if result.told else {}


def _sockets() -> list:
    return [
        io.Model.Input("model", tooltip=f"{MODEL}; it is not changed."),
        io.Clip.Input("clip", tooltip="Text encoder of the same checkpoint; it is not changed."),
        io.Vae.Input("vae", tooltip="Autoencoder of the same checkpoint. Photos are encoded once, without noise."),
        image_input(),
        Anchors.Input(
            "anchors",
            optional=True,
            tooltip="Nouns to stay close to, from Load Anchors (the paper: the 80 COCO nouns). Not connected: the "
            "plain method, without semantic inversion.",
        ),
        mask_input(),
    ]


def _tuning_schema(
    node_id: str, kind: type[InversionConfig], description: str, aliases: list[str], lora_tooltip: str
) -> io.Schema:
    """The schema of a method that trains the model too."""
    return io.Schema(
        node_id=node_id,
        display_name=kind.method.node_name,
        category=CATEGORY,
        description=description,
        search_aliases=aliases,
        is_input_list=True,
        is_output_node=True,
        inputs=[
            *_sockets(),
            ConceptImages.Input(
                "more_concepts",
                optional=True,
                tooltip="Further concepts from Concept Images, learned together with this one. They share the photos "
                "of a batch evenly, in turn where batch_size is smaller: raise batch_size or steps with their number.",
            ),
            io.Image.Input(
                "class_images",
                optional=True,
                tooltip="At least num_class_images pictures of the first concept's class, of the size of the photos; "
                "those of more concepts go into Concept Images. Not connected: the model makes them before the "
                "training and keeps them with the run.",
            ),
            *setting_inputs(ConceptPayload, "concept"),
            *setting_inputs(
                kind, "training", "prior", "run", "optimizer", "memory", "accumulation", "lora", "hold", "rank"
            ),
            *setting_inputs(kind, "choice"),
        ],
        outputs=[
            io.Model.Output(
                "model", display_name="model", tooltip="The trained model; a clone, the input is unchanged."
            ),
            Concept.Output(
                "concept",
                display_name="concept",
                is_output_list=True,
                tooltip="The learned words, for Save Concept; one for each concept. Their embedding files are written.",
            ),
            _loss_output(),
            io.LoraModel.Output("lora", display_name="lora", tooltip=lora_tooltip),
            io.String.Output(
                "prompt_words",
                display_name="prompt_words",
                tooltip="embedding:NAME superclass, several joined by and, to be wired into a prompt: a prompt that is "
                "typed may be encoded before the training has written the file.",
            ),
        ],
    )


def _loss_output() -> io.LossMap.Output:
    return io.LossMap.Output(
        "loss",
        display_name="loss",
        tooltip="Loss of every step, for Plot Loss Graph; and composition, how evenly the word shares attention with "
        "other nouns: 1 as its class noun does, towards 0 where it dominates.",
    )


NODES = [TrainConcept, TrainCustomDiffusion, TrainDreamBooth]
