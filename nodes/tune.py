"""The nodes that learn concepts by training the model, too: Custom Diffusion and DreamBooth."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..compinv_core.concept_images import ConceptImages as ConceptImagesPayload
from ..compinv_core.host.folders import embedding_folder, lora_path, run_folder
from ..compinv_core.host.tuning import TuningResult, train_custom_diffusion, train_dreambooth
from ..compinv_core.optimizers import OPTIMIZERS
from ..compinv_core.tuning_config import CustomDiffusionConfig, DreamBoothConfig, TuningConfig
from .sockets import Concept, ConceptImages
from .training_inputs import concept_inputs, read_config, run_inputs, sockets, training_inputs

_CATEGORY = "compositional inversion"


class TrainCustomDiffusion(io.ComfyNode):
    """Custom Diffusion, with semantic inversion where anchors are connected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvTrainCustomDiffusion",
            display_name="Train Custom Diffusion",
            category=_CATEGORY,
            description=(
                "Learns a word for your own thing, and the keys and values of the model's cross-attention. Writes the "
                "embedding file NAME and the LoRA file NAME when done; model is the trained model for this graph."
            ),
            search_aliases=["custom diffusion", "multi-concept customization", "cross attention", "fine-tune"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                *sockets(),
                *_tuning_sockets(),
                *concept_inputs(),
                *training_inputs(
                    500, 2, 2e-5, 0.95, "500", 2, "The paper: 1e-5 x batch 2 = 2e-5", TuningConfig.template
                ),
                *_prior_inputs(),
                *run_inputs(preview_prompt=TuningConfig.preview_prompt),
                *_memory_inputs(),
            ],
            outputs=[
                *_outputs(),
                io.LoraModel.Output(
                    "lora",
                    display_name="lora",
                    tooltip="The full difference of the model, for Save LoRA Weights. The file NAME in models/loras "
                    "holds the same.",
                ),
                _words_output(),
            ],
        )

    @classmethod
    def execute(cls, model, clip, vae, images, **inputs) -> io.NodeOutput:
        config = read_config(CustomDiffusionConfig, inputs)
        files = _connected(config, inputs)
        # Concepts that are learned together share one LoRA file.
        lora = lora_path("+".join(_names(config, files["more_concepts"])))
        result = train_custom_diffusion(model[0], clip[0], vae[0], images, config, lora_path=lora, **files)
        return _output(result)


class TrainDreamBooth(io.ComfyNode):
    """DreamBooth, with semantic inversion where anchors are connected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvTrainDreamBooth",
            display_name="Train DreamBooth",
            category=_CATEGORY,
            description=(
                "Learns a word for your own thing, and the whole diffusion model. Writes the embedding file NAME when "
                "done; keep model with Save Checkpoint, or its low-rank form with Save LoRA Weights."
            ),
            search_aliases=["dreambooth", "fine-tune", "full finetune", "train checkpoint"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                *sockets(),
                *_tuning_sockets(),
                *concept_inputs(),
                *training_inputs(800, 1, 1e-5, 0.6, "800", 1, "The authors' script: 1e-5", TuningConfig.template),
                *_prior_inputs(),
                *run_inputs(200, TuningConfig.preview_prompt),
                *_memory_inputs(),
                io.Int.Input(
                    "lora_rank",
                    default=32,
                    min=1,
                    max=1024,
                    optional=True,
                    advanced=True,
                    tooltip="Rank that the output lora cuts the trained difference down to, 1 to 1024. Higher is "
                    "nearer to the trained model and a larger file. The paper has no such form.",
                ),
            ],
            outputs=[
                *_outputs(),
                io.LoraModel.Output(
                    "lora",
                    display_name="lora",
                    tooltip="The trained difference at rank lora_rank, an ordinary LoRA, for Save LoRA Weights.",
                ),
                _words_output(),
            ],
        )

    @classmethod
    def execute(cls, model, clip, vae, images, **inputs) -> io.NodeOutput:
        config = read_config(DreamBoothConfig, inputs)
        return _output(train_dreambooth(model[0], clip[0], vae[0], images, config, **_connected(config, inputs)))


def _connected(config: TuningConfig, inputs: dict[str, list]) -> dict[str, Any]:
    """Return what is connected, and where the results are kept."""
    more = inputs["more_concepts"][0] if inputs.get("more_concepts") else None
    return {
        "anchors": inputs["anchors"][0] if inputs.get("anchors") else None,
        "mask": inputs.get("mask") or None,
        "more_concepts": more,
        "class_images": inputs.get("class_images") or None,
        "run_dir": run_folder("+".join(_names(config, more)), config.method),
        "embedding_folder": embedding_folder(),
    }


def _names(config: TuningConfig, more: ConceptImagesPayload | None) -> list[str]:
    return [config.name, *(concept.name for concept in (more.chain() if more is not None else ()))]


def _output(result: TuningResult) -> io.NodeOutput:
    return io.NodeOutput(result.model, list(result.concepts), {"loss": result.losses}, result.lora, result.prompt_words)


def _outputs() -> list:
    return [
        io.Model.Output("model", display_name="model", tooltip="The trained model; a clone, the input is unchanged."),
        Concept.Output(
            "concept",
            display_name="concept",
            is_output_list=True,
            tooltip="The learned words, for Save Concept; one for each concept. Their embedding files are written.",
        ),
        io.LossMap.Output("loss", display_name="loss", tooltip="Loss of every step, for Plot Loss Graph."),
    ]


def _words_output() -> io.String.Output:
    return io.String.Output(
        "prompt_words",
        display_name="prompt_words",
        tooltip="embedding:NAME superclass, several joined by and, to be wired into a prompt: a prompt that is typed "
        "may be encoded before the training has written the file.",
    )


def _tuning_sockets() -> list:
    return [
        ConceptImages.Input(
            "more_concepts",
            optional=True,
            tooltip="Further concepts from Concept Images, learned together with this one. They share the photos of a "
            "batch evenly, in turn where batch_size is smaller: raise batch_size or steps with their number.",
        ),
        io.Image.Input(
            "class_images",
            optional=True,
            tooltip="At least num_class_images pictures of the first concept's class, of the size of the photos; those "
            "of more concepts go into Concept Images. Not connected: the model makes them before the training and "
            "keeps them with the run.",
        ),
    ]


def _prior_inputs() -> list:
    return [
        io.String.Input(
            "class_prompt",
            default="",
            tooltip="Prompt of the class pictures of the first concept. Empty takes the superclass.",
        ),
        io.Int.Input(
            "num_class_images",
            default=200,
            min=1,
            max=10_000,
            tooltip="Pictures of each class, 1 to 10000. The paper: 200.",
        ),
        io.Float.Input(
            "prior_weight",
            default=1.0,
            min=0.0,
            max=100.0,
            step=0.05,
            tooltip="Weight of the loss on class pictures, which keeps the class itself from becoming your thing. 0 "
            "trains without them. 0 to 100. The paper: 1.",
        ),
        io.Float.Input(
            "token_learning_rate",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.00001,
            round=False,
            optional=True,
            advanced=True,
            tooltip="Effective rate of the word's vectors, up to 1. 0: learning_rate, as in the authors' script.",
        ),
    ]


def _memory_inputs() -> list:
    return [
        io.Combo.Input(
            "optimizer",
            options=list(OPTIMIZERS),
            default=OPTIMIZERS[0],
            optional=True,
            advanced=True,
            tooltip="adamw keeps 8 bytes per trained number, adamw_8bit 2 (needs bitsandbytes and a graphics card), "
            "adafactor next to none. The paper: adamw.",
        ),
        io.Boolean.Input(
            "gradient_checkpointing",
            default=False,
            optional=True,
            advanced=True,
            tooltip="Compute the model's blocks twice instead of keeping their activations: less memory, more time, "
            "the same result. The paper: off.",
        ),
        io.Int.Input(
            "gradient_accumulation",
            default=1,
            min=1,
            max=256,
            optional=True,
            advanced=True,
            tooltip="Batches per step, 1 to 256, whose gradients are averaged: a larger batch in the memory of a small "
            "one. The paper: 1.",
        ),
    ]


NODES = [TrainCustomDiffusion, TrainDreamBooth]
