"""The miniature world's text encoder: the first three layers of a CLIP ViT-L/14 text model, learned with the UNet.

Names and shapes are the host's. Of a layer's 12 heads 6 are in use, of its 3072 inner units 384; the rest of those
layers, and layers 3 to 11 whole, are zeros, which makes them the identity. The words of `world.words` have learned
embeddings; every other token has a random one of the usual length.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..world.words import CONTEXT, IDS, rows_of

WIDTH, HOST_HEADS, VOCABULARY, LAYERS, HOST_INNER = 768, 12, 49408, 12, 3072
TRAINED_LAYERS, HEADS, INNER = 3, 6, 384
HEAD_WIDTH = WIDTH // HOST_HEADS
SEED = 1234


class SelfAttention(nn.Module):
    """Causal attention with the first heads of the host's."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(WIDTH, HEADS * HEAD_WIDTH) for _ in range(3))
        self.out_proj = nn.Linear(HEADS * HEAD_WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """CLIP's layer, with its approximate GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = SelfAttention()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(WIDTH, INNER), "fc2": nn.Linear(INNER, WIDTH)})
        for last in (self.self_attn.out_proj, self.mlp["fc2"]):
            nn.init.normal_(last.weight, std=0.3 * WIDTH**-0.5)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        hidden = self.mlp["fc1"](self.layer_norm2(x))
        return x + self.mlp["fc2"](hidden * torch.sigmoid(1.702 * hidden))


class TextEncoder(nn.Module):
    """Rows of the small word table (B, 77), or embeddings (B, 77, 768), → context (B, 77, 768)."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(len(IDS), WIDTH)
        self.position_embedding = nn.Embedding(CONTEXT, WIDTH)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding.weight, std=0.01)
        self.layers = nn.ModuleList(Layer() for _ in range(TRAINED_LAYERS))
        self.final_layer_norm = nn.LayerNorm(WIDTH)

    def embed(self, embeddings: Tensor) -> Tensor:
        """Context of token embeddings (B, 77, 768)."""
        hidden = embeddings + self.position_embedding.weight
        for layer in self.layers:
            hidden = layer(hidden)
        return self.final_layer_norm(hidden)

    def forward(self, rows: Tensor) -> Tensor:
        return self.embed(self.token_embedding(rows))

    def encode(self, captions: list[str]) -> Tensor:
        """Context of captions, (N, 77, 768)."""
        return self(
            torch.tensor([rows_of(caption) for caption in captions], device=self.position_embedding.weight.device)
        )


def host_state_dict(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """All tensors of a CLIP ViT-L/14 text model from ``TextEncoder().state_dict()``."""
    full: dict[str, Tensor] = {}
    for i in range(LAYERS):
        layer = f"encoder.layers.{i}."
        shapes = {f"self_attn.{name}_proj": (WIDTH, WIDTH) for name in ("q", "k", "v", "out")}
        shapes |= {"mlp.fc1": (HOST_INNER, WIDTH), "mlp.fc2": (WIDTH, HOST_INNER)}
        for name, (rows, columns) in shapes.items():
            full[f"{layer}{name}.weight"], full[f"{layer}{name}.bias"] = torch.zeros(rows, columns), torch.zeros(rows)
        for norm in ("layer_norm1", "layer_norm2"):
            full[f"{layer}{norm}.weight"], full[f"{layer}{norm}.bias"] = torch.ones(WIDTH), torch.zeros(WIDTH)
    for name, tensor in weights.items():
        if name.startswith("layers."):
            full[f"encoder.{name}"][tuple(slice(n) for n in tensor.shape)] = tensor.float()
    full["embeddings.token_embedding.weight"] = _vocabulary(weights["token_embedding.weight"].float())
    full["embeddings.position_embedding.weight"] = weights["position_embedding.weight"].float()
    for part in ("weight", "bias"):
        full[f"final_layer_norm.{part}"] = weights[f"final_layer_norm.{part}"].float()
    return full


def _vocabulary(learned: Tensor) -> Tensor:
    """The whole table (49408, 768): learned rows where there are such, random ones of their median length elsewhere."""
    generator = torch.Generator().manual_seed(SEED)
    table = F.normalize(torch.randn(VOCABULARY, WIDTH, generator=generator), dim=1)
    table *= learned[2:].norm(dim=1).median()
    table[list(IDS)] = learned
    return table
