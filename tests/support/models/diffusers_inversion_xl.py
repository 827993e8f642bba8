"""A plain textual inversion loop for SDXL in diffusers and transformers, on the weights of our random checkpoint.

It is what most people train with, written out: the new token is a row of the embedding table of each text encoder,
both tables are the optimiser's parameters, and the gradient of the other rows is set to zero.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from .. import locations
from ..checkpoints import FEW_LAYERS
from .diffusers_inversion import token_ids
from .text_weights import CLIP_G, CLIP_L, VOCABULARY, ClipShape

Weights = dict[str, torch.Tensor]


class DiffusersInversionXl:
    """The state of one loop.

    Parameters
    ----------
    checkpoint : Path
        A file of `checkpoints.build("sdxl")`.
    sentences : list of str
        Templates with ``{}``.
    init_word : str
        One token.
    learning_rate : float
    size : (int, int)
        Height and width of the photos in pixels, which the model is told, uncropped.
    """

    def __init__(
        self, checkpoint: Path, sentences: list[str], init_word: str, learning_rate: float, size: tuple[int, int]
    ) -> None:
        from diffusers import DDPMScheduler
        from transformers import CLIPTokenizer

        weights = {k: v.float() if v.is_floating_point() else v for k, v in load_file(checkpoint).items()}
        self.unet = _unet(weights)
        first, second = _clip_l(weights), _clip_g(weights)
        del weights
        self.schedule = DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000
        )
        tokenizer = CLIPTokenizer.from_pretrained(str(locations.HOST / "comfy" / "sd1_tokenizer"))
        # The second tokenizer pads with "!", whose id is 0.
        self.ids = [
            [token_ids(tokenizer, sentence, pad) for sentence in sentences] for pad in (tokenizer.pad_token_id, 0)
        ]
        self.encoders, self.tables = (first, second), []
        for encoder in self.encoders:
            encoder.resize_token_embeddings(VOCABULARY + 1, mean_resizing=False)
            encoder.requires_grad_(False).eval()
            table = encoder.get_input_embeddings().weight
            with torch.no_grad():
                table[VOCABULARY] = table[tokenizer(init_word)["input_ids"][1]]
            self.tables.append(table.requires_grad_(True))
        self.unet.requires_grad_(False).eval()
        self.mask = torch.zeros(VOCABULARY + 1, 1)
        self.mask[VOCABULARY] = 1
        self.sizes = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32)
        self.optimizer = torch.optim.AdamW(self.tables, lr=learning_rate, weight_decay=0.0)

    @property
    def vectors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The new token's rows in the two tables."""
        first, second = (table[VOCABULARY].detach() for table in self.tables)
        return first, second

    def step(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, sentence: int) -> float:
        """Train one step and return its loss; the latents are scaled (B, 4, h, w)."""
        count, noisy = len(latents), self.schedule.add_noise(latents, noise, timesteps)
        outputs = [
            encoder(ids[sentence].expand(count, -1), output_hidden_states=True)
            for encoder, ids in zip(self.encoders, self.ids, strict=True)
        ]
        context = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        added = {"text_embeds": outputs[1].text_embeds, "time_ids": self.sizes.expand(count, -1)}
        prediction = self.unet(noisy, timesteps, context, added_cond_kwargs=added).sample
        loss = torch.nn.functional.mse_loss(prediction, noise)
        loss.backward()
        for table in self.tables:
            assert table.grad is not None
            table.grad.mul_(self.mask)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())


def _unet(weights: Weights):
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(320,) * 3,
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        cross_attention_dim=2048,
        attention_head_dim=5,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    unet.load_state_dict(convert_ldm_unet_checkpoint(dict(weights), dict(unet.config)))
    return unet


def _clip_l(weights: Weights):
    from transformers import CLIPTextModel

    prefix = "conditioner.embedders.0.transformer."
    state = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    return _filled(CLIPTextModel(_config(CLIP_L, "quick_gelu")), state)


def _clip_g(weights: Weights):
    from transformers import CLIPTextModelWithProjection

    prefix = "conditioner.embedders.1.model."
    state = {}
    names = {
        "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }  # fmt: skip
    whole = {
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final.weight": "text_model.final_layer_norm.weight",
        "ln_final.bias": "text_model.final_layer_norm.bias",
    }
    for key, value in weights.items():
        name = key.removeprefix(prefix)
        if name == key or name == "logit_scale":
            continue
        if name == "text_projection":
            state["text_projection.weight"] = value.T
        elif name in whole:
            state[whole[name]] = value
        else:
            layer, part = name.removeprefix("transformer.resblocks.").split(".", 1)
            into = f"text_model.encoder.layers.{layer}"
            if part.startswith("attn.in_proj_"):
                kind = part.removeprefix("attn.in_proj_")
                for letter, third in zip("qkv", value.chunk(3), strict=True):
                    state[f"{into}.self_attn.{letter}_proj.{kind}"] = third
            else:
                module, kind = part.rsplit(".", 1)
                state[f"{into}.{names[module]}.{kind}"] = value
    return _filled(CLIPTextModelWithProjection(_config(CLIP_G, "gelu")), state)


def _config(shape: ClipShape, activation: str):
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=VOCABULARY, hidden_size=shape.width, intermediate_size=shape.hidden, projection_dim=shape.width,
        num_hidden_layers=FEW_LAYERS, num_attention_heads=shape.width // 64, max_position_embeddings=77,
        hidden_act=activation, bos_token_id=49406, eos_token_id=49407,
    )  # fmt: skip


def _filled(model, state: Weights):
    own = set(model.state_dict())
    # transformers 5 has no `text_model` level in some of its models.
    renamed = {
        name if name in own else name.replace("text_model.", "", 1): value
        for name, value in state.items()
        if "position_ids" not in name
    }
    missing = model.load_state_dict(renamed, strict=False)
    if missing.unexpected_keys or [key for key in missing.missing_keys if "position_ids" not in key]:
        raise RuntimeError(f"The text encoder's weights do not fit: {missing}")
    return model
