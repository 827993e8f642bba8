"""The node that makes the data a layout predictor is trained on."""

from __future__ import annotations

from comfy_api.latest import io

from ..compinv_core.basics.names import check_name
from ..compinv_core.host.folders import layout_dataset_folder
from ..compinv_core.host.graph.remarks import remarked
from ..compinv_core.host.layouts.collection import NODE_NAME, collect_layouts, data_set_fingerprint
from ..compinv_core.host.layouts.collection_config import CollectionConfig
from . import schema


class CollectLayouts(io.ComfyNode):
    """Pictures of noun pairs, with the boxes that a detector finds in them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvCollectLayouts",
            display_name=NODE_NAME,
            category=schema.CATEGORY,
            description=(
                "Paints pictures of noun pairs, finds both nouns with a detector, and keeps their boxes: the data that "
                "a layout predictor learns from. Can be stopped at any time; the next run goes on where it was."
            ),
            search_aliases=["compinv", "layout predictor", "dataset", "COCO", "bounding box", "spatial inversion"],
            is_output_node=True,
            has_intermediate_output=True,
            inputs=[
                *_sources(),
                io.String.Input(
                    "dataset",
                    default="layouts",
                    tooltip="Name of the data set and its folder in output/compinv/layouts: letters, digits, - and _.",
                ),
                *schema.setting_inputs(CollectionConfig),
            ],
            outputs=[
                schema.LayoutDataset.Output(
                    display_name="dataset", tooltip="Everything that is in the folder, for Train Layout Predictor."
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, dataset, **inputs) -> str:
        # The folder can grow or be deleted between runs. A name that comes over a link is not known here.
        return data_set_fingerprint(layout_dataset_folder(check_name(dataset, "dataset"))) if dataset else ""

    @classmethod
    @remarked
    def execute(cls, model, clip, vae, detector, vocabulary, dataset, **settings) -> io.NodeOutput:
        folder = layout_dataset_folder(check_name(dataset, "dataset"))
        collected = collect_layouts(model, clip, vae, detector, vocabulary, CollectionConfig(**settings), folder)
        return io.NodeOutput(collected)


def _sources() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip=f"{schema.MODEL}, the one that layouts will be predicted for."),
        io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
        io.Vae.Input("vae", tooltip="The autoencoder of the same checkpoint."),
        schema.Detector.Input("detector", tooltip="From Load Detector; nouns it does not know are left out."),
        schema.Anchors.Input(
            "vocabulary", tooltip="From Load Anchors: the nouns to pair. The paper takes the 80 nouns of COCO."
        ),
    ]


NODES = [CollectLayouts]
