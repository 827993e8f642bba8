"""Nodes that make layouts."""

from __future__ import annotations

from comfy_api.latest import io

from ..compinv_core.detectors.bounding_boxes import (
    layout_from_bounding_boxes,
    layout_to_bounding_boxes,
    with_descriptions,
)
from ..compinv_core.words.phrases import parse_phrases
from . import schema


class LayoutFromBoxes(io.ComfyNode):
    """Bounding boxes and phrases to a layout."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvLayoutFromBoxes",
            display_name="Layout From Boxes",
            category=schema.CATEGORY,
            description=(
                "Says which part of the prompt belongs into which box. Draw the boxes with Create Bounding Boxes, or "
                "take them from a detector."
            ),
            search_aliases=["compinv", "layout", "bounding box", "region", "spatial inversion", "BOUNDING_BOX"],
            inputs=[
                io.BoundingBox.Input(
                    "bboxes",
                    force_input=True,
                    tooltip=(
                        "Boxes in pixels, of one picture (of several, the first counts). Every phrase finds the box of "
                        "its label, the one with the highest score if there are several; boxes without a label go to "
                        "the phrases that are left, in order. No box means no guidance."
                    ),
                ),
                io.String.Input(
                    "phrases",
                    multiline=True,
                    default="",
                    tooltip=(
                        "Parts of the prompt, one per line, worded as in the prompt: for example embedding:my-cat cat, "
                        "then a backpack. The paper's spans are the concept with its class noun."
                    ),
                ),
                io.Int.Input(
                    "width",
                    default=512,
                    min=16,
                    max=16384,
                    step=8,
                    tooltip=(
                        "Width in pixels of the picture the boxes were drawn for, 16 to 16384. The paper's pictures "
                        "have 512."
                    ),
                ),
                io.Int.Input(
                    "height",
                    default=512,
                    min=16,
                    max=16384,
                    step=8,
                    tooltip=(
                        "Height in pixels of the picture the boxes were drawn for, 16 to 16384. The paper's pictures "
                        "have 512."
                    ),
                ),
                io.Array.Input(
                    "elements",
                    optional=True,
                    tooltip=(
                        "The elements output of the Create Bounding Boxes that the boxes come from: each box's "
                        "description on the canvas is then its label. Not connected: boxes count by their own labels."
                    ),
                ),
            ],
            outputs=[
                schema.Layout.Output(display_name="layout", tooltip="For Apply Layout Guidance."),
                io.BoundingBox.Output(
                    display_name="bboxes",
                    tooltip="The box of each phrase in pixels, with the phrase on it: a starting point of Create "
                    "Bounding Boxes, which drops the labels of other nodes' boxes.",
                ),
            ],
        )

    @classmethod
    def execute(cls, bboxes, phrases: str, width: int, height: int, elements=None) -> io.NodeOutput:
        labelled = with_descriptions(bboxes, elements)
        layout = layout_from_bounding_boxes(labelled, parse_phrases(phrases), width, height)
        return io.NodeOutput(layout, layout_to_bounding_boxes(layout))


NODES = [LayoutFromBoxes]
