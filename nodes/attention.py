"""Nodes that make the model's attention visible: what each phrase of the prompt looks at, step by step."""

from __future__ import annotations

from comfy_api.latest import io

from ..compinv_core.basics.report import write_report
from ..compinv_core.host.folders import SHOWN, report_folder, shown_folder
from ..compinv_core.host.graph.remarks import remarked
from ..compinv_core.host.recording.recorder import NODE_NAME, record_attention
from ..compinv_core.recording.measures import attention_curves, attention_report, boxes_for
from ..compinv_core.recording.plots import draw_curves, draw_heatmaps
from ..compinv_core.recording.scrubbing import write_scrubber
from ..compinv_core.spatial.settings import BLOCK_CHOICES
from ..compinv_core.words.phrases import parse_phrases
from . import schema


class RecordAttention(io.ComfyNode):
    """A model whose sampling records the attention of phrases."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvRecordAttention",
            display_name=NODE_NAME,
            category=schema.CATEGORY,
            description=(
                "Records where each phrase of the prompt has its attention while a sampler runs. The picture stays the "
                "same, bit for bit. Connect the model to the sampler and the attention to Show Attention."
            ),
            search_aliases=["compinv", "cross-attention", "attention map", "heatmap", "DAAM", "interpretability"],
            has_intermediate_output=True,
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip=f"{schema.MODEL}, before or after Apply Layout Guidance. It is not changed; the "
                    "output is a copy.",
                ),
                io.Clip.Input("clip", tooltip="The text encoder that encodes the sampler's positive prompt."),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="The sampler's positive prompt, word for word; best wired from the same text node.",
                ),
                io.String.Input(
                    "phrases",
                    multiline=True,
                    default="",
                    tooltip="Parts of the prompt, one per line, worded as there: for example embedding:my-cat cat, "
                    "then a backpack. Two or more show whose attention is greater (the paper's Fig. 2) and how alike. "
                    "Empty takes those of `layout`.",
                ),
                io.Combo.Input(
                    "blocks",
                    options=list(BLOCK_CHOICES),
                    default=BLOCK_CHOICES[0],
                    optional=True,
                    advanced=True,
                    tooltip="Parts of the UNet whose cross-attention is recorded. The paper takes the middle block and "
                    "the first decoder level with cross-attention; all up has finer maps.",
                ),
                schema.Layout.Input(
                    "layout", optional=True, tooltip="Its phrases are recorded where `phrases` is empty."
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For the sampler's model input."),
                schema.Attention.Output(display_name="attention", tooltip="For Show Attention."),
            ],
        )

    @classmethod
    @remarked
    def execute(
        cls, model, clip, text: str, phrases: str, blocks: str = BLOCK_CHOICES[0], layout=None
    ) -> io.NodeOutput:
        parts = parse_phrases(phrases) or (layout.phrases if layout else ())
        return io.NodeOutput(*record_attention(model, clip, text, parts, blocks))


class ShowAttention(io.ComfyNode):
    """Heatmaps, curves and numbers of a recorded sampling."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvShowAttention",
            display_name="Show Attention",
            category=schema.CATEGORY,
            description=(
                "Draws what Record Attention saw: a heatmap per phrase, before and after layout guidance, and over the "
                "steps how much attention each phrase has, how alike it is and how much of it lies in the boxes."
            ),
            search_aliases=["compinv", "cross-attention", "attention map", "heatmap", "DAAM", "interpretability"],
            is_output_node=True,
            inputs=[
                schema.Attention.Input("attention", tooltip="From Record Attention."),
                io.Latent.Input(
                    "samples",
                    tooltip="The LATENT output of the sampler that ran on the recorded model, unchanged. It makes this "
                    "node wait for the sampling, and tells which one is meant.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The same sampling's decoded pictures, laid under the heatmaps in grey.",
                ),
                io.Int.Input(
                    "step",
                    default=-1,
                    min=-1,
                    max=9999,
                    tooltip="Step of the sampler whose maps are drawn; 0 is the first. -1 draws the mean over all "
                    "steps and, with layout guidance, the means over the guided steps before and after it (the paper's "
                    "Fig. 9). The plot always shows all steps.",
                ),
                schema.Layout.Input(
                    "layout",
                    optional=True,
                    tooltip="Boxes to measure the attention in. Not connected: those of Apply Layout Guidance, if it "
                    "is on the same model. Connect it to measure a sampling without guidance.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="maps",
                    tooltip="One picture per sampled image: a column per phrase, rows before and after guidance. "
                    "Bright is much attention, on one scale within a column.",
                ),
                io.Image.Output(
                    display_name="plot",
                    tooltip="Over the steps: similarity of the latents' queries to each phrase's keys (the paper's "
                    "Fig. 2), the attention of each phrase, the cosine of their maps, and the share in the boxes.",
                ),
                schema.Report.Output(
                    display_name="report",
                    tooltip="The plot's numbers for every image; also written to output/compinv/reports.",
                ),
            ],
        )

    @classmethod
    def execute(cls, attention, samples, image=None, step: int = -1, layout=None) -> io.NodeOutput:
        record = attention.record_of(samples["samples"])
        boxes = boxes_for(record, layout)
        maps = draw_heatmaps(record, boxes, step, image)
        curves = attention_curves(record, boxes)
        report = attention_report(record, curves, boxes)
        write_report(report, report_folder())
        shown = write_scrubber(record, curves, boxes, image, shown_folder())
        file = {"filename": shown.name, "subfolder": SHOWN, "type": "temp"}
        return io.NodeOutput(maps, draw_curves(record, curves), report, ui={"attention": [file]})


NODES = [RecordAttention, ShowAttention]
