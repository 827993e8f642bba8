"""The node that makes the data a layout predictor is trained on."""

from __future__ import annotations

from comfy_api.latest import io

from ..compinv_core.basics.names import check_name
from ..compinv_core.host.collection_config import DEFAULT_TEMPLATE, SAMPLERS, SCHEDULERS, CollectionConfig
from ..compinv_core.host.folders import layout_dataset_folder
from ..compinv_core.host.layout_collection import NODE_NAME, collect_layouts, data_set_fingerprint
from . import sockets


class CollectLayouts(io.ComfyNode):
    """Pictures of noun pairs, with the boxes that a detector finds in them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvCollectLayouts",
            display_name=NODE_NAME,
            category="compositional inversion",
            description=(
                "Paints pictures of noun pairs, finds both nouns with a detector, and keeps their boxes: the data that "
                "a layout predictor learns from. Can be stopped at any time; the next run goes on where it was."
            ),
            search_aliases=["compinv", "layout predictor", "dataset", "COCO", "bounding box", "spatial inversion"],
            is_output_node=True,
            inputs=[*_sources(), *_amount(), *_sampling(), *_rare()],
            outputs=[
                sockets.LayoutDataset.Output(
                    display_name="dataset", tooltip="Everything that is in the folder, for Train Layout Predictor."
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, dataset, **inputs) -> str:
        # The folder can grow or be deleted between runs. A name that comes over a link is not known here.
        return data_set_fingerprint(layout_dataset_folder(check_name(dataset, "dataset"))) if dataset else ""

    @classmethod
    def execute(cls, model, clip, vae, detector, vocabulary, dataset, **settings) -> io.NodeOutput:
        folder = layout_dataset_folder(check_name(dataset, "dataset"))
        collected = collect_layouts(model, clip, vae, detector, vocabulary, CollectionConfig(**settings), folder)
        return io.NodeOutput(collected)


def _sources() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="A Stable Diffusion 1 model, the one that layouts will be predicted for."),
        io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
        io.Vae.Input("vae", tooltip="The autoencoder of the same checkpoint."),
        sockets.Detector.Input("detector", tooltip="From Load Detector; nouns it does not know are left out."),
        sockets.Anchors.Input(
            "vocabulary", tooltip="From Load Anchors: the nouns to pair. The paper takes the 80 nouns of COCO."
        ),
    ]


def _amount() -> list[io.Input]:
    return [
        io.String.Input(
            "dataset",
            default="layouts",
            tooltip="Name of the data set and its folder in output/compinv/layouts: letters, digits, - and _.",
        ),
        io.Int.Input(
            "pairs",
            default=100,
            min=1,
            max=100_000,
            tooltip="Different pairs of nouns, 1 to 100000, drawn so that all nouns occur equally often. 80 nouns "
            "have 3160 pairs; the paper does not say how many it used.",
        ),
        io.Int.Input(
            "images_per_pair",
            default=20,
            min=1,
            max=10_000,
            tooltip="Pictures of each pair, 1 to 10000; every second one has the nouns in the other order, so give an "
            "even number. Raise it later to add pictures.",
        ),
    ]


def _sampling() -> list[io.Input]:
    return [
        io.Int.Input("steps", default=20, min=1, max=1000, tooltip="Sampling steps of a picture. The paper: 50."),
        io.Float.Input(
            "cfg", default=7.5, min=0.0, max=100.0, step=0.1, tooltip="Classifier-free guidance. The paper: 7.5."
        ),
        io.Combo.Input(
            "sampler_name",
            options=list(SAMPLERS),
            default="dpmpp_2m",
            tooltip="Sampler, as in KSampler. The paper: DDIM.",
        ),
        io.Combo.Input(
            "scheduler",
            options=list(SCHEDULERS),
            default="normal",
            tooltip="Noise schedule, as in KSampler.",
        ),
        io.Int.Input(
            "width",
            default=512,
            min=64,
            max=16384,
            step=8,
            tooltip="Width of the pictures in pixels, a multiple of 8. The paper: 512.",
        ),
        io.Int.Input(
            "height",
            default=512,
            min=64,
            max=16384,
            step=8,
            tooltip="Height of the pictures in pixels, a multiple of 8. The paper: 512.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=io.ControlAfterGenerate.fixed,
            tooltip="Seed of the pairs and of all pictures; each picture has its own, derived from it.",
        ),
    ]


def _rare() -> list[io.Input]:
    return [
        io.Int.Input(
            "batch_size",
            default=4,
            min=1,
            max=64,
            optional=True,
            advanced=True,
            tooltip="Pictures painted at once, 1 to 64. Lower it when memory runs out.",
        ),
        io.String.Input(
            "template",
            default=DEFAULT_TEMPLATE,
            optional=True,
            advanced=True,
            tooltip="The prompt, with {} in the places of the two nouns. The predictor reads its nouns in the same "
            "sentence. The paper: {} and {}.",
        ),
    ]


NODES = [CollectLayouts]
