"""The node that measures pictures against photos and prompt."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..compinv_core.basics.report import write_report
from ..compinv_core.host.folders import report_folder
from ..compinv_core.host.measures.encoders import (
    NO_CLIP,
    NO_LOOK,
    HostVision,
    chosen_clip,
    chosen_look,
    clip_names,
    encoder_fingerprint,
    look_names,
)
from ..compinv_core.host.progress import host_listener
from ..compinv_core.measures.evaluation import NODE_NAME, Question, evaluate, summary_text
from ..compinv_core.words.phrases import parse_phrases, with_class_nouns
from . import schema


class EvaluateImages(io.ComfyNode):
    """Pictures, photos and a prompt to numbers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvEvaluateImages",
            display_name=NODE_NAME,
            category=schema.CATEGORY,
            description=(
                "Measures generated pictures the way of the paper's tables: how well they fit the prompt, how alike "
                "the own thing is to its photos, and whether everything that was asked for is there."
            ),
            search_aliases=[
                "compinv",
                "metrics",
                "CLIP score",
                "text alignment",
                "image alignment",
                "DINO",
                "benchmark",
            ],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The pictures to be measured; a list of several sizes is fine."),
                io.Image.Input("references", tooltip="The photos that the word was learned from."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="",
                    tooltip="The prompt of the pictures with the class word in the place of the learned word: a cat "
                    "and a backpack. With `concept` connected the prompt itself will do. Empty takes the phrases of "
                    "`layout`, joined by and, or the class noun of `concept`.",
                ),
                io.String.Input(
                    "concepts",
                    multiline=True,
                    default="",
                    tooltip="Nouns of the prompt that the detector should find, one per line, such as backpack. Only "
                    "with a detector. Empty takes the phrases of `layout`. The paper: the composed noun.",
                ),
                schema.Detector.Input(
                    "detector",
                    optional=True,
                    tooltip="From Load Detector: says which of the concepts are in each picture. Not connected: only "
                    "likeness is measured, and coi_likelihood is 0. The paper: DETR at 0.8.",
                ),
                io.Combo.Input(
                    "clip_model",
                    options=clip_names(),
                    default=NO_CLIP,
                    tooltip="The CLIP that judges: a folder of models/compinv/encoders. The openai names are "
                    "downloaded when they are first used (605 MB and 1.7 GB). The paper: openai/clip-vit-base-patch32. "
                    "Numbers of different CLIPs cannot be compared.",
                ),
                io.Combo.Input(
                    "image_model",
                    options=look_names(),
                    default=NO_LOOK,
                    optional=True,
                    advanced=True,
                    tooltip="A second network that compares pictures with photos, in the report alone: a DINO as "
                    "transformers saves it. The facebook names are downloaded when they are first used (90 MB each).",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="A further one, from Load CLIP Vision: any that the host loads, DINOv2 among them.",
                ),
                schema.Layout.Input(
                    "layout", optional=True, tooltip="Its phrases stand in for an empty `prompt` and `concepts`."
                ),
                schema.Concept.Input(
                    "concept",
                    optional=True,
                    tooltip="From a training: its class noun takes the place of its word in `prompt` and `layout`.",
                ),
            ],
            outputs=[
                schema.Report.Output(
                    display_name="report",
                    tooltip="A row for each picture and the means, also written to output/compinv/reports.",
                ),
                io.String.Output(display_name="text", tooltip="The means in words."),
                io.Float.Output(
                    display_name="text_alignment",
                    tooltip="2.5 times the cosine of picture and prompt, not below 0; mean over the pictures.",
                ),
                io.Float.Output(
                    display_name="image_alignment",
                    tooltip="Cosine of picture and photo; mean over all pairs.",
                ),
                io.Float.Output(
                    display_name="coi_likelihood",
                    tooltip="Share of pictures in which a concept is found, mean over the concepts; 0 without a "
                    "detector.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, clip_model, image_model=None, **inputs) -> tuple:
        # A name that comes over a link is not known here.
        names = [name for values in (clip_model, image_model) for name in values or () if isinstance(name, str)]
        return tuple((name, tuple(encoder_fingerprint(name))) for name in names)

    @classmethod
    def execute(
        cls,
        images,
        references,
        prompt,
        concepts,
        clip_model,
        detector=None,
        image_model=None,
        clip_vision=None,
        layout=None,
        concept=None,
    ) -> io.NodeOutput:
        nouns = {each.name: each.superclass for each in concept or ()}
        phrases = layout[0].phrases if layout else ()
        asked = prompt[0].strip() or " and ".join(phrases) or " and ".join(nouns.values())
        wanted = parse_phrases(concepts[0]) or (phrases if detector else ())
        question = Question(
            references, with_class_nouns(asked, nouns), tuple(with_class_nouns(each, nouns) for each in wanted)
        )
        clip = chosen_clip(clip_model[0])
        looks = [chosen_look(name) for name in (image_model or [])[:1]] + [
            HostVision(v) for v in (clip_vision or [])[:1]
        ]
        report = evaluate(
            images,
            question,
            clip,
            [look for look in looks if look],
            detector[0] if detector else None,
            host_listener(),
        )
        write_report(report, report_folder())
        text, means = summary_text(report), report.summary
        numbers = (means["text_alignment"], means["image_alignment"], means.get("coi_likelihood", 0.0))
        return io.NodeOutput(report, text, *numbers, ui=ui.PreviewText(text))


NODES = [EvaluateImages]
