"""Nodes for spatial inversion: guiding the sampler so that each phrase appears in its box."""

from __future__ import annotations

from comfy_api.latest import io

from ..compinv_core.basics.errors import remark
from ..compinv_core.host.graph.remarks import remarked, running_node
from ..compinv_core.host.sampling.wiring import miswired
from ..compinv_core.host.spatial.guidance import NODE_NAME, apply_layout_guidance
from ..compinv_core.spatial.settings import PRESETS, GuidanceConfig
from . import schema


class ApplyLayoutGuidance(io.ComfyNode):
    """A model whose sampling moves each phrase's attention into its box."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvApplyLayoutGuidance",
            display_name=NODE_NAME,
            category=schema.CATEGORY,
            description=(
                "Spatial inversion: moves each phrase's attention into its box during the first steps of sampling, so "
                "that no concept crowds out another. Connect both outputs to the sampler."
            ),
            search_aliases=[
                "compinv",
                "spatial inversion",
                "attention guidance",
                "regional prompt",
                "box guidance",
                "layout control",
                "training-free layout",
            ],
            inputs=[
                *_source_inputs(),
                *schema.setting_inputs(GuidanceConfig, "guidance", "rare"),
                _preset_input(),
                *schema.setting_inputs(GuidanceConfig, "share"),
                _conditioning_input(),
                *schema.setting_inputs(GuidanceConfig, "method"),
            ],
            has_intermediate_output=True,
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For the sampler's model input."),
                io.Conditioning.Output(
                    display_name="positive",
                    tooltip="The encoded prompt with the layout, for the sampler's positive input.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> list[str]:
        # The host would show the last run's remarks as long as only the wiring behind this node changes.
        return miswired(*running_node(), NODE_NAME)

    @classmethod
    @remarked
    def execute(
        cls, model, clip, text: str, layout, preset: str = "paper", conditioning=None, **settings
    ) -> io.NodeOutput:
        config = GuidanceConfig(**settings).with_preset(preset)
        for sentence in miswired(cls.hidden.prompt, cls.hidden.unique_id, NODE_NAME):
            remark(sentence)
        return io.NodeOutput(*apply_layout_guidance(model, clip, text, layout, config, conditioning=conditioning))


def _source_inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip=f"{schema.MODEL}. It is not changed; the output is a copy."),
        io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint; encodes the prompt."),
        io.String.Input(
            "text",
            multiline=True,
            dynamic_prompts=True,
            tooltip=(
                "The prompt. It must contain every phrase of the layout. Emphasis (a ball:1.3), embedding:name "
                "and prompts of any length work as in CLIP Text Encode."
            ),
        ),
        schema.Layout.Input("layout", tooltip="Phrases and their boxes; an empty layout switches guidance off."),
    ]


def _preset_input() -> io.Combo.Input:
    return io.Combo.Input(
        "preset",
        options=list(PRESETS),
        default=PRESETS[0],
        optional=True,
        advanced=True,
        tooltip=(
            "official_2024 repeats the authors' released code for comparison: span placeholder, heads second half, one "
            "loss per head and token, boxes truncated to whole cells of the map, and guidance that ends for good once "
            "an image is below the threshold. It overrides span, heads and guided_share. paper takes the settings as "
            "they are."
        ),
    )


def _conditioning_input() -> io.Conditioning.Input:
    return io.Conditioning.Input(
        "conditioning",
        optional=True,
        tooltip=(
            "The prompt, encoded already: joined to other prompts, limited to steps or areas, or of CLIP Text Encode "
            "(SDXL), where `text` may be that of one text encoder. Without it, `text` is encoded here."
        ),
    )


NODES = [ApplyLayoutGuidance]
