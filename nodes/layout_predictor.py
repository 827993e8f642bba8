"""Nodes that train, keep and use the layout predictor (Eq. 8)."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..compinv_core.basics.atomic_file import check_writable
from ..compinv_core.basics.report import write_report
from ..compinv_core.boxes.drawing import draw_layout
from ..compinv_core.boxes.drawn import as_drawn, read_drawn, with_drawn
from ..compinv_core.detectors.bounding_boxes import layout_to_bounding_boxes
from ..compinv_core.host.folders import layout_predictor_path, report_folder
from ..compinv_core.host.graph.remarks import remarked
from ..compinv_core.host.layouts.prediction import PREDICT_NODE, TRAIN_NODE, predict_layout, train_predictor
from ..compinv_core.host.layouts.predictor_choice import (
    check_predictor_name,
    chosen_predictor,
    predictor_fingerprint,
    predictor_names,
)
from ..compinv_core.layouts.predictor import SIDE_BY_SIDE
from ..compinv_core.layouts.predictor_file import write_predictor
from ..compinv_core.layouts.report import layout_report, summary_text
from ..compinv_core.layouts.training import LayoutTrainingConfig
from ..compinv_core.words.phrases import parse_phrases
from . import schema
from .layout import drawn_input, ground, ground_input

_ALIASES = ["compinv", "layout predictor", "bounding box", "spatial inversion"]


class TrainLayoutPredictor(io.ComfyNode):
    """A predictor from a layout data set, measured on pairs that it has not seen."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvTrainLayoutPredictor",
            display_name=TRAIN_NODE,
            category=schema.CATEGORY,
            description=(
                "Learns where things stand in pictures from the boxes of noun pairs (the paper's Eq. 8), and compares "
                "itself with two simple guesses on pairs that it has not seen."
            ),
            search_aliases=[*_ALIASES, "MLP", "train"],
            is_output_node=True,
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder that Collect Layouts used."),
                schema.LayoutDataset.Input("dataset", tooltip="From Collect Layouts."),
                *schema.setting_inputs(LayoutTrainingConfig, "training", "rare"),
            ],
            outputs=[
                schema.LayoutPredictor.Output(
                    display_name="predictor", tooltip="For Predict Layout and Save Layout Predictor."
                ),
                io.LossMap.Output(display_name="loss", tooltip="Loss of every epoch, for Plot Loss Graph."),
                schema.Report.Output(
                    display_name="report",
                    tooltip="Overlap with the found boxes on held-out pairs, beside that of a constant layout and of "
                    "each noun's mean box; also written to output/compinv/reports.",
                ),
            ],
        )

    @classmethod
    def execute(cls, clip, dataset, **settings) -> io.NodeOutput:
        config = LayoutTrainingConfig(**settings)
        check_writable(report_folder())
        predictor, result = train_predictor(clip, dataset, config)
        report = layout_report(predictor, result, dataset, config)
        write_report(report, report_folder())
        text = ui.PreviewText(summary_text(result))
        return io.NodeOutput(predictor, {"loss": result.losses}, report, ui=text)


class SaveLayoutPredictor(io.ComfyNode):
    """Writes a predictor among the models."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvSaveLayoutPredictor",
            display_name="Save Layout Predictor",
            category=schema.CATEGORY,
            description="Writes models/compinv/layout/FILENAME.safetensors, for Load Layout Predictor.",
            search_aliases=[*_ALIASES, "save"],
            is_output_node=True,
            inputs=[
                schema.LayoutPredictor.Input("predictor", tooltip="From Train Layout Predictor."),
                io.String.Input(
                    "filename",
                    default="",
                    tooltip="File name without ending: letters, digits, - and _. Empty takes the data set's name.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, predictor, filename: str) -> io.NodeOutput:
        name = check_predictor_name(filename if filename.strip() else predictor.name)
        write_predictor(predictor, layout_predictor_path(name))
        return io.NodeOutput(ui=ui.PreviewText(f"Choose {name} in Load Layout Predictor."))


class LoadLayoutPredictor(io.ComfyNode):
    """A predictor from disk."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvLoadLayoutPredictor",
            display_name="Load Layout Predictor",
            category=schema.CATEGORY,
            description="Loads what Save Layout Predictor wrote, or offers equal boxes side by side.",
            search_aliases=[*_ALIASES, "load"],
            inputs=[
                io.Combo.Input(
                    "filename",
                    options=predictor_names(),
                    default=SIDE_BY_SIDE,
                    tooltip="A file of models/compinv/layout. side-by-side predicts nothing: it puts equal boxes in a "
                    "row, in the order of the phrases. miniature world is for the small model that comes with the "
                    "pack. For Stable Diffusion 1.5, train one with the workflow 04-train-layout-predictor.",
                ),
            ],
            outputs=[schema.LayoutPredictor.Output(display_name="predictor", tooltip="For Predict Layout.")],
        )

    @classmethod
    def fingerprint_inputs(cls, filename: str) -> tuple:
        return (filename, predictor_fingerprint(filename))

    @classmethod
    def execute(cls, filename: str) -> io.NodeOutput:
        return io.NodeOutput(chosen_predictor(filename))


class PredictLayout(io.ComfyNode):
    """Phrases to boxes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvPredictLayout",
            display_name=PREDICT_NODE,
            category=schema.CATEGORY,
            description=(
                "Says where the things of a prompt belong in the picture. After a run the boxes are shown on the node, "
                "where they can be moved; connect layout to Apply Layout Guidance."
            ),
            search_aliases=[*_ALIASES, "predict"],
            is_output_node=True,
            has_intermediate_output=True,
            inputs=[
                schema.LayoutPredictor.Input("predictor", tooltip="From Load or Train Layout Predictor."),
                io.Clip.Input("clip", tooltip="The text encoder that the predictor was trained with."),
                io.String.Input(
                    "phrases",
                    multiline=True,
                    default="",
                    tooltip="Two or more parts of the prompt, one per line, worded as there: for example "
                    "embedding:my-cat cat, then a backpack. A phrase counts as the noun it ends with, and words that "
                    "the predictor does not know as their nearest noun (the paper's rule).",
                ),
                io.Int.Input(
                    "width",
                    default=512,
                    min=16,
                    max=16384,
                    step=8,
                    tooltip="Width of the picture in pixels, 16 to 16384; the same as on Create Bounding Boxes, if "
                    "that follows. The paper: 512.",
                ),
                io.Int.Input(
                    "height",
                    default=512,
                    min=16,
                    max=16384,
                    step=8,
                    tooltip="Height of the picture in pixels, 16 to 16384; the same as on Create Bounding Boxes, if "
                    "that follows. The paper: 512.",
                ),
                drawn_input("A phrase with a box here is not predicted; the others are."),
                ground_input(),
            ],
            outputs=[
                schema.Layout.Output(display_name="layout", tooltip="For Apply Layout Guidance."),
                io.BoundingBox.Output(
                    display_name="bboxes",
                    tooltip="The same boxes in pixels, each with its phrase: the starting point of Create Bounding "
                    "Boxes.",
                ),
                io.Image.Output(display_name="preview", tooltip="A drawing of the boxes."),
            ],
        )

    @classmethod
    @remarked
    def execute(
        cls, predictor, clip, phrases: str, width: int, height: int, boxes: str = "", image=None
    ) -> io.NodeOutput:
        parts = parse_phrases(phrases)
        drawn = read_drawn(boxes, parts, PREDICT_NODE)
        predicted, nouns = predict_layout(predictor, clip, parts, width, height)
        layout = with_drawn(predicted, drawn)
        text = "\n".join(f"{phrase}: as {noun}" for phrase, noun in nouns.items()) or SIDE_BY_SIDE
        told = {"compinv_predicted": as_drawn(predicted), **ground(image, width, height), "text": (text,)}
        return io.NodeOutput(layout, layout_to_bounding_boxes(layout), draw_layout(layout), ui=told)


NODES = [TrainLayoutPredictor, SaveLayoutPredictor, LoadLayoutPredictor, PredictLayout]
