"""A plain inversion loop in diffusers and transformers, on the weights of one of our random checkpoints.

It is what most people train with, written out: the new token is a row of the embedding table, the whole table is the
optimiser's parameter, and the gradient of the other rows is set to zero. Custom Diffusion and DreamBooth also train
weights of the network, and add the loss on class pictures in the same forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from .. import locations

SHAPES = {
    "small": dict(block_out_channels=(320,) * 4, layers_per_block=1),
    "full": dict(block_out_channels=(320, 640, 1280, 1280), layers_per_block=2),
}
VOCABULARY = 49408


class DiffusersInversion:
    """The state of one loop.

    Parameters
    ----------
    kind : {"small", "full"}
    checkpoint : Path
        A file of `checkpoints.build(kind)`.
    sentences : list of str
        Templates with ``{}``.
    init_word : str
        One token.
    learning_rate : float
    trains_weight : callable (name of a parameter) -> bool
        Which weights of the network are trained, at the same rate; none in textual inversion.
    class_prompt : str
        Of the class pictures, for `step` with a prior loss.
    """

    def __init__(
        self,
        kind: str,
        checkpoint: Path,
        sentences: list[str],
        init_word: str,
        learning_rate: float,
        trains_weight: Callable[[str], bool] = lambda name: False,
        class_prompt: str = "",
    ) -> None:
        from diffusers import DDPMScheduler
        from transformers import CLIPTokenizer

        weights = {k: v.float() if v.is_floating_point() else v for k, v in load_file(checkpoint).items()}
        self.unet, self.text_encoder = _unet(kind, weights), _text_encoder(weights)
        del weights
        self.schedule = DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000
        )
        tokenizer = CLIPTokenizer.from_pretrained(str(locations.HOST / "comfy" / "sd1_tokenizer"))
        self.sentences = [token_ids(tokenizer, sentence, tokenizer.pad_token_id) for sentence in sentences]
        self.text_encoder.resize_token_embeddings(VOCABULARY + 1, mean_resizing=False)
        self.table = self.text_encoder.get_input_embeddings().weight
        with torch.no_grad():
            self.table[VOCABULARY] = self.table[tokenizer(init_word)["input_ids"][1]]
        self.unet.requires_grad_(False).eval()
        self.text_encoder.requires_grad_(False).eval()
        self.table.requires_grad_(True)
        self.mask = torch.zeros(VOCABULARY + 1, 1)
        self.mask[VOCABULARY] = 1
        weights = [weight for name, weight in self.unet.named_parameters() if trains_weight(name)]
        for weight in weights:
            weight.requires_grad_(True)
        self.optimizer = torch.optim.AdamW([self.table, *weights], lr=learning_rate, weight_decay=0.0)
        with torch.no_grad():
            ids = tokenizer(class_prompt, padding="max_length", max_length=77, return_tensors="pt")["input_ids"]
            self.class_context = self.text_encoder(ids)[0]

    @property
    def vector(self) -> torch.Tensor:
        return self.table[VOCABULARY].detach()

    def step(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, sentence: int, of_class: int = 0
    ) -> float:
        """Train one step and return its loss.

        The latents are scaled (B, 4, h, w); the last `of_class` are class pictures, whose loss is added.
        """
        noisy, photos = self.schedule.add_noise(latents, noise, timesteps), len(latents) - of_class
        context = self.text_encoder(self.sentences[sentence].expand(photos, -1))[0]
        if of_class:
            context = torch.cat([context, self.class_context.expand(of_class, -1, -1)])
        prediction = self.unet(noisy, timesteps, context).sample
        loss = torch.nn.functional.mse_loss(prediction[:photos], noise[:photos])
        if of_class:
            loss = loss + torch.nn.functional.mse_loss(prediction[photos:], noise[photos:])
        loss.backward()
        assert self.table.grad is not None
        self.table.grad.mul_(self.mask)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())


def token_ids(tokenizer, sentence: str, pad: int) -> torch.Tensor:
    """Tokens (1, 77) of a sentence with the new token, whose id is the first behind the vocabulary, for ``{}``."""
    before, after = sentence.split("{}")
    head = tokenizer(before.strip())["input_ids"][:-1]
    tail = tokenizer(after.strip())["input_ids"][1:]
    ids = [*head, VOCABULARY, *tail]
    return torch.tensor([ids + [pad] * (77 - len(ids))])


def _unet(kind: str, weights: dict[str, torch.Tensor]):
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    unet = UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=768,
        attention_head_dim=8,
        **SHAPES[kind],
    )
    unet.load_state_dict(convert_ldm_unet_checkpoint(dict(weights), dict(unet.config)))
    return unet


def _text_encoder(weights: dict[str, torch.Tensor]):
    from transformers import CLIPTextConfig, CLIPTextModel

    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
            num_attention_heads=12, max_position_embeddings=77, hidden_act="quick_gelu",
            bos_token_id=49406, eos_token_id=49407,
        )
    )  # fmt: skip
    prefix, own = "cond_stage_model.transformer.", set(model.state_dict())
    renamed = {}
    for key, value in weights.items():
        if key.startswith(prefix) and "position_ids" not in key:
            name = key.removeprefix(prefix)
            # transformers 5 has no `text_model` level.
            renamed[name if name in own else name.replace("text_model.", "", 1)] = value
    missing = model.load_state_dict(renamed, strict=False)
    if missing.unexpected_keys or [key for key in missing.missing_keys if "position_ids" not in key]:
        raise RuntimeError(f"The text encoder's weights do not fit: {missing}")
    return model
