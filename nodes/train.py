"""The nodes that learn a concept from photos and save it as an embedding."""

from __future__ import annotations

from dataclasses import fields, replace

from comfy_api.latest import io, ui

from ..compinv_core.anchors import REDUCTIONS
from ..compinv_core.concept import check_name
from ..compinv_core.embedding_file import write_concept
from ..compinv_core.host.folders import embedding_path, run_folder
from ..compinv_core.host.training import train_concept
from ..compinv_core.inversion_config import PRESETS, InversionConfig
from ..compinv_core.prompts import TEMPLATES
from ..compinv_core.sparse_coding import CODERS
from .sockets import Anchors, Concept

_CATEGORY = "compositional inversion"
_SETTINGS = {field.name for field in fields(InversionConfig)}


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
            inputs=[*_sockets(), *_concept_inputs(), *_training_inputs(), *_run_inputs()],
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
        settings = {name: values[0] for name, values in widgets.items() if name in _SETTINGS}
        sentences = (line.strip() for line in widgets.get("custom_templates", [""])[0].splitlines())
        config = InversionConfig(**settings, templates=tuple(line for line in sentences if line))
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


def _sockets() -> list:
    return [
        io.Model.Input("model", tooltip="Stable Diffusion 1 checkpoint; it is not changed."),
        io.Clip.Input("clip", tooltip="Text encoder of the same checkpoint; it is not changed."),
        io.Vae.Input("vae", tooltip="Autoencoder of the same checkpoint. Photos are encoded once, without noise."),
        io.Image.Input(
            "images",
            tooltip="Photos of the concept, three to five, all of one size (the paper: 512x512). Sides that are no "
            "multiple of 8 pixels are cropped at the centre.",
        ),
        Anchors.Input(
            "anchors",
            optional=True,
            tooltip="Nouns to stay close to, from Load Anchors (the paper: the 80 COCO nouns). Not connected: plain "
            "textual inversion.",
        ),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="One mask per photo, of the same size, white (1) where the concept is. The background then hardly "
            "enters the word.",
        ),
    ]


def _concept_inputs() -> list:
    return [
        io.String.Input(
            "name",
            default="my-thing",
            tooltip="Name of the concept and of its embedding file: letters, digits, - and _.",
        ),
        io.String.Input(
            "superclass",
            default="",
            tooltip="The ordinary English noun for the concept, such as cat. It is the first anchor and never leaves.",
        ),
        io.String.Input(
            "init_word",
            default="",
            tooltip="Word to start from. Empty takes the superclass, as the paper does.",
        ),
        io.Int.Input(
            "num_vectors",
            default=1,
            min=1,
            max=75,
            tooltip="Token vectors to learn, 1 to 75; all are trained. More vectors hold more detail and take more "
            "room in the prompt. The paper: 1.",
        ),
    ]


def _training_inputs() -> list:
    return [
        io.Int.Input("steps", default=1000, min=1, max=100_000, tooltip="Training steps. The paper: 5000 at batch 8."),
        io.Int.Input(
            "batch_size",
            default=4,
            min=1,
            max=64,
            tooltip="Noised photos per step, drawn with repetition. The paper: 8. Lower it when memory runs out.",
        ),
        io.Float.Input(
            "learning_rate",
            default=0.005,
            min=0.000001,
            max=1.0,
            step=0.0001,
            round=False,
            tooltip="Effective rate of AdamW; nothing multiplies it. The paper: 0.005 x batch 8 = 0.04.",
        ),
        io.Float.Input(
            "anchor_weight",
            default=0.95,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Lambda: share of the anchor loss, 0 to 1, the rest is the reconstruction. The paper: 0.95 (with "
            "anchor_reduction seq_mean). No effect without anchors.",
        ),
        io.Int.Input(
            "max_active_anchors",
            default=4,
            min=1,
            max=32,
            tooltip="Most anchors in use at a time, superclass included (c - 1 of the paper). 1 leaves the superclass.",
        ),
        io.Int.Input(
            "recode_every",
            default=100,
            min=0,
            max=100_000,
            tooltip="Steps between two choices of anchors. 0 keeps the superclass as the only one.",
        ),
        io.Combo.Input(
            "sparse_coder",
            options=list(CODERS),
            default=CODERS[0],
            advanced=True,
            tooltip="How anchors are chosen: non-negative orthogonal matching pursuit, or scikit-learn's positive "
            "lasso by least angles or coordinate descent.",
        ),
        io.Combo.Input(
            "anchor_reduction",
            options=list(REDUCTIONS),
            default=REDUCTIONS[0],
            advanced=True,
            tooltip="What the squared distance is divided by: seq_mean 77 x 768 (the authors' code; the paper's 0.95 "
            "refers to it), dim_mean 768, sum 1. The log gives the equal anchor_weight for the others.",
        ),
        io.Combo.Input(
            "template",
            options=list(TEMPLATES),
            default="object",
            tooltip="Sentences around the word in training: for a thing, or for a style.",
        ),
    ]


def _run_inputs() -> list:
    return [
        io.Int.Input(
            "preview_every",
            default=0,
            min=0,
            max=100_000,
            tooltip="Steps between preview pictures, 12 sampling steps each; 0 for none. The result is the same.",
        ),
        io.String.Input(
            "preview_prompt",
            default="a photo of {}",
            advanced=True,
            tooltip="Prompt of the preview, with {} in the place of the learned word.",
        ),
        io.Int.Input(
            "save_every",
            default=100,
            min=0,
            max=100_000,
            advanced=True,
            tooltip="Steps between saves of the training state in output/compinv/runs/NAME. It is saved on stopping in "
            "any case; 0 saves only then and at the end.",
        ),
        io.Boolean.Input(
            "resume",
            default=True,
            tooltip="Continue a stopped training of the same name and inputs, bit for bit. Off begins anew and keeps "
            "the old state as previous.safetensors.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=io.ControlAfterGenerate.fixed,
            tooltip="Seed of the training's random numbers.",
        ),
        io.Combo.Input(
            "preset",
            options=list(PRESETS),
            default=PRESETS[0],
            optional=True,
            advanced=True,
            tooltip="official_2024 repeats the authors' released code for comparison: the superclass is the only "
            "anchor for good, the mask has no effect, only the first of several vectors is trained.",
        ),
        io.String.Input(
            "custom_templates",
            default="",
            multiline=True,
            optional=True,
            advanced=True,
            tooltip="Sentences of your own instead of the template's, one per line, each with {} in the place of the "
            "learned word. Empty takes the template.",
        ),
    ]


NODES = [TrainConcept, SaveConcept]
