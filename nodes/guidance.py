"""Nodes for spatial inversion: guiding the sampler so that each phrase appears in its box."""

from __future__ import annotations

from comfy_api.latest import io

from ..compinv_core.attention import HEAD_CHOICES
from ..compinv_core.guidance import BLOCK_CHOICES, LOSS_FORMS, PRESETS, SPAN_CHOICES, GuidanceConfig
from ..compinv_core.host.sampling import NODE_NAME, apply_layout_guidance
from . import sockets


class ApplyLayoutGuidance(io.ComfyNode):
    """A model whose sampling moves each phrase's attention into its box."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CompInvApplyLayoutGuidance",
            display_name=NODE_NAME,
            category="compositional inversion",
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
            inputs=[*_source_inputs(), *_guidance_inputs(), *_advanced_inputs()],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For the sampler's model input."),
                io.Conditioning.Output(
                    display_name="positive",
                    tooltip="The encoded prompt with the layout, for the sampler's positive input.",
                ),
            ],
        )

    @classmethod
    def execute(cls, model, clip, text: str, layout, preset: str = "paper", **settings) -> io.NodeOutput:
        config = GuidanceConfig(**settings).with_preset(preset)
        return io.NodeOutput(*apply_layout_guidance(model, clip, text, layout, config))


def _source_inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="A Stable Diffusion 1 model. It is not changed; the output is a copy."),
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
        sockets.Layout.Input("layout", tooltip="Phrases and their boxes; an empty layout switches guidance off."),
    ]


def _guidance_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "strength",
            default=30.0,
            min=0.0,
            max=1000.0,
            step=1.0,
            round=0.01,
            tooltip=(
                "Size of the updates, without unit, 0 to 1000: the latent moves by strength · sigma² times the "
                "gradient of the loss. 0 is off. Too much tears the picture apart. Paper's code: 30."
            ),
        ),
        io.Float.Input(
            "threshold",
            default=0.2,
            min=0.0,
            max=1.0,
            step=0.01,
            round=0.001,
            tooltip=(
                "An image is left alone while its loss, 0 (all attention inside the boxes) to 1, is not above "
                "this. Paper's code: 0.2, of the squared loss."
            ),
        ),
        io.Int.Input(
            "max_iterations",
            default=5,
            min=0,
            max=100,
            tooltip=(
                "Updates per guided step at most, 0 to 100. Each costs about as much as one evaluation of the "
                "model. Paper's code: 5."
            ),
        ),
        io.Int.Input(
            "guided_steps",
            default=10,
            min=0,
            max=1000,
            tooltip=(
                "Steps of the sampler that are guided, from the first on, 0 to 1000; composition is settled "
                "early. Paper's code: 10 of 50, so about a fifth of the steps."
            ),
        ),
        io.Combo.Input(
            "loss",
            options=list(LOSS_FORMS),
            default="squared",
            tooltip=(
                "Of the share of attention outside each box, the mean of the squares (paper's code) or the "
                "plain mean (linear, paper's Eq. 9). The threshold refers to this number."
            ),
        ),
        io.Combo.Input(
            "blocks",
            options=list(BLOCK_CHOICES),
            default=BLOCK_CHOICES[0],
            tooltip=(
                "Parts of the UNet whose cross-attention is steered. The paper takes the middle block and the "
                "first decoder level with cross-attention; all up is slower and finer."
            ),
        ),
    ]


def _advanced_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "span",
            options=list(SPAN_CHOICES),
            default="phrase",
            optional=True,
            advanced=True,
            tooltip=(
                "Tokens of a phrase that count: the whole phrase, its class noun included, or only the learned "
                "placeholder of a phrase with an embedding (paper's code)."
            ),
        ),
        io.Combo.Input(
            "heads",
            options=list(HEAD_CHOICES),
            default="all",
            optional=True,
            advanced=True,
            tooltip="Attention heads that count: all of them, or only the second half (paper's code).",
        ),
        io.Float.Input(
            "end_percent",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            round=0.001,
            optional=True,
            advanced=True,
            tooltip=(
                "Part of the noise schedule, 0 (full noise) to 1 (none), after which nothing is guided, "
                "whatever guided_steps says. Below 1, a second pass over the finished picture stays unguided. "
                "The paper's 10 of 50 steps end at 0.2."
            ),
        ),
        io.Combo.Input(
            "preset",
            options=list(PRESETS),
            default="paper",
            optional=True,
            advanced=True,
            tooltip=(
                "official_2024 repeats the authors' released code for comparison: span placeholder, heads "
                "second half, one loss per head, and guidance that ends for good once an image is below the "
                "threshold. It overrides span and heads. paper takes the settings as they are."
            ),
        ),
    ]


NODES = [ApplyLayoutGuidance]
