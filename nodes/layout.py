"""Nodes that make layouts."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..compinv_core.basics.errors import UserError
from ..compinv_core.boxes.drawing import draw_layout
from ..compinv_core.boxes.drawn import as_drawn, read_drawn
from ..compinv_core.boxes.layout import Layout
from ..compinv_core.boxes.places import layout_from_masks
from ..compinv_core.detectors.bounding_boxes import (
    layout_from_bounding_boxes,
    layout_to_bounding_boxes,
    with_descriptions,
)
from ..compinv_core.host.graph.remarks import remarked
from ..compinv_core.host.layouts.from_model import NODE_NAME as LOOK_NODE
from ..compinv_core.host.layouts.from_model import LookConfig, layout_from_model
from ..compinv_core.words.phrases import parse_phrases
from . import schema

NODE_NAME = "Layout From Boxes"


class LayoutFromBoxes(io.ComfyNode):
    """Bounding boxes and phrases to a layout."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvLayoutFromBoxes",
            display_name=NODE_NAME,
            category=schema.CATEGORY,
            description=(
                "Says which part of the prompt belongs into which box. Draw the boxes on the node, or take them from a "
                "detector or from Create Bounding Boxes."
            ),
            search_aliases=["compinv", "layout", "bounding box", "region", "spatial inversion", "BOUNDING_BOX"],
            has_intermediate_output=True,
            inputs=[
                io.BoundingBox.Input(
                    "bboxes",
                    optional=True,
                    force_input=True,
                    tooltip=(
                        "Boxes in pixels, of one picture (of several, the first counts). Every phrase finds the box of "
                        "its label, the one with the highest score if there are several; boxes without a label go to "
                        "the phrases that are left, in order. Not needed for phrases whose box is drawn on the node. "
                        "No box means no guidance."
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
                drawn_input("A phrase with a box here needs none in `bboxes`, and one there does not count."),
                ground_input(),
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
    @remarked
    def execute(
        cls, phrases: str, width: int, height: int, bboxes=None, elements=None, boxes: str = "", image=None
    ) -> io.NodeOutput:
        parts = parse_phrases(phrases)
        drawn = read_drawn(boxes, parts, NODE_NAME)
        labelled = with_descriptions(bboxes, elements)
        layout = layout_from_bounding_boxes(labelled, parts, width, height, drawn)
        incoming = [box for box in as_drawn(layout) if box["phrase"] not in drawn]
        told = {"compinv_predicted": incoming, **ground(image, width, height)}
        return io.NodeOutput(layout, layout_to_bounding_boxes(layout), ui=told)


def drawn_input(meaning: str) -> io.String.Input:
    """Return the boxes that are drawn on a node; `web/layout_canvas.js` shows them in the place of the text."""
    return io.String.Input(
        "boxes",
        default="",
        optional=True,
        socketless=True,
        tooltip=f"The boxes drawn on the node, as a JSON list of phrase, x0, y0, x1 and y1, from 0 (left, top) to 1. "
        f"{meaning}",
    )


def ground_input() -> io.Image.Input:
    """Return the picture that boxes are drawn on."""
    return io.Image.Input(
        "image",
        optional=True,
        tooltip="A picture to draw the boxes on, such as an earlier one of the same size; the first of several. It is "
        "shown after a run and changes nothing else.",
    )


def ground(image: Any, width: int, height: int) -> dict[str, list]:
    """What `web/layout_canvas.js` draws the boxes on."""
    if image is not None and (image.ndim != 4 or 0 in image.shape or image.shape[-1] not in (3, 4)):
        raise UserError(f"`image` has the shape {tuple(image.shape)}; connect an IMAGE, in colours.")
    pictures = [] if image is None else ui.PreviewImage(image[:1]).as_dict()["images"]
    return {"compinv_size": [width, height], "compinv_picture": pictures}


class LayoutFromMasks(io.ComfyNode):
    """Masks and phrases to a layout."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvLayoutFromMasks",
            display_name="Layout From Masks",
            category=schema.CATEGORY,
            description="Says which part of the prompt belongs under which mask, hard or soft.",
            search_aliases=["compinv", "layout", "mask", "region", "regional prompt", "spatial inversion"],
            has_intermediate_output=True,
            inputs=[
                io.Mask.Input(
                    "masks",
                    tooltip="One mask for each phrase, in their order, 0 (not here) to 1 (here), of the picture's "
                    "proportions; Mask Batch and the like join several. The paper has boxes.",
                ),
                io.String.Input(
                    "phrases",
                    multiline=True,
                    default="",
                    tooltip="Parts of the prompt, one per line, worded as in the prompt: for example embedding:my-cat "
                    "cat, then a backpack.",
                ),
            ],
            outputs=_outputs("The box around each mask"),
        )

    @classmethod
    @remarked
    def execute(cls, masks, phrases: str) -> io.NodeOutput:
        return _given_out(layout_from_masks(masks, parse_phrases(phrases)))


class LayoutFromModel(io.ComfyNode):
    """Phrases to boxes, by the model itself."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvLayoutFromModel",
            display_name=LOOK_NODE,
            category=schema.CATEGORY,
            description=(
                "Asks the model where it would put things: begins the sampling with every learned word replaced by its "
                "class noun, and boxes each noun's attention. No predictor, no detector, no drawing."
            ),
            search_aliases=["compinv", "layout", "bounding box", "region", "automatic layout", "spatial inversion"],
            has_intermediate_output=True,
            inputs=[
                io.Model.Input("model", tooltip=f"{schema.MODEL}, the one that paints."),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="The prompt, the same as on Apply Layout Guidance.",
                ),
                io.String.Input(
                    "phrases",
                    multiline=True,
                    default="",
                    tooltip="Parts of the prompt, one per line, worded as there: for example embedding:my-cat cat, "
                    "which is looked for as cat. A learned word alone counts as the nearest of COCO's nouns.",
                ),
                *schema.setting_inputs(LookConfig),
            ],
            outputs=_outputs("The same boxes"),
        )

    @classmethod
    @remarked
    def execute(cls, model, clip, text: str, phrases: str, **settings) -> io.NodeOutput:
        return _given_out(layout_from_model(model, clip, text, parse_phrases(phrases), LookConfig(**settings)))


def _outputs(boxes: str) -> list[io.Output]:
    return [
        schema.Layout.Output(display_name="layout", tooltip="For Apply Layout Guidance."),
        io.BoundingBox.Output(
            display_name="bboxes",
            tooltip=f"{boxes} in pixels, with its phrase: a starting point of Create Bounding Boxes.",
        ),
        io.Image.Output(display_name="preview", tooltip="A drawing of the layout."),
    ]


def _given_out(layout: Layout) -> io.NodeOutput:
    return io.NodeOutput(layout, layout_to_bounding_boxes(layout), draw_layout(layout))


NODES = [LayoutFromBoxes, LayoutFromMasks, LayoutFromModel]
