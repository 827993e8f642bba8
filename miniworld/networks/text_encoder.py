"""The miniature world's text encoder: real CLIP ViT-L/14 tensors, derived from a seed instead of trained.

Token embeddings have meaning by construction (nouns of one category are alike), and layer 0's self-attention mixes the
tokens: a token whose normalised embedding points along the *salience* direction is attended to by every later token,
which then carries a rotated copy of it. Content words are salient, the end token is not. That is what lets a drifted
pseudo-word take over the context of its neighbours, as in the real model. Layers 1 to 11 have zero weights, which makes
them the identity.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..host import host_path
from ..world.backgrounds import BACKGROUNDS
from ..world.drawing import NOUNS
from ..world.scenes import CATEGORY, COLOURS, PATTERNS

WIDTH, CONTEXT, VOCABULARY, LAYERS, HEADS = 768, 77, 49408, 12, 12
START, END = 49406, 49407
SEED = 1234
CATEGORIES = tuple(sorted(set(CATEGORY.values())))
EMBEDDING_NORM = 0.4
POSITIONS = 15
"""Positions from here on share one zero position embedding, so that padding looks alike everywhere."""
ATTENTION_SHARPNESS = 0.3
MIXING = 0.35
"""Share of the mixed-in content, relative to a token's own embedding."""
SALIENCE = {"content": 0.2, "end": -0.2, "start": -0.015}
"""Squared cosine of an embedding with the salience direction, signed."""


def _unit(generator: torch.Generator) -> Tensor:
    return F.normalize(torch.randn(WIDTH, generator=generator), dim=0)


@cache
def vocabulary() -> dict[str, int]:
    """Word → token id, from the tokenizer that the host ships."""
    entries = json.loads(Path(host_path(), "comfy/sd1_tokenizer/vocab.json").read_text())
    return {word.removesuffix("</w>"): index for word, index in entries.items() if word.endswith("</w>")}


def token_ids(caption: str) -> list[int]:
    """Ids of a caption of known single-token words, with start, end and padding, (77,)."""
    ids = [START, *(vocabulary()[word] for word in caption.split()), END]
    return ids + [END] * (CONTEXT - len(ids))


def _word_directions(generator: torch.Generator) -> dict[str, Tensor]:
    """Unit vectors of the words with a built meaning: shared directions plus one of their own."""
    shared = {name: _unit(generator) for name in ("noun", "colour", "pattern", "background", *CATEGORIES)}

    def blend(*parts: tuple[float, Tensor]) -> Tensor:
        return F.normalize(sum(share**0.5 * direction for share, direction in parts), dim=0)

    words = {}
    for noun in NOUNS:
        words[noun] = blend((0.15, shared["noun"]), (0.25, shared[CATEGORY[noun]]), (0.6, _unit(generator)))
    for category in CATEGORIES:
        words[category] = blend((0.15, shared["noun"]), (0.65, shared[category]), (0.2, _unit(generator)))
    for kind, names in (("colour", COLOURS), ("pattern", PATTERNS), ("background", BACKGROUNDS)):
        for name in names:
            words[name] = blend((0.3, shared[kind]), (0.7, _unit(generator)))
    return words


@cache
def text_encoder() -> dict[str, Tensor]:
    """Tensors of the encoder without their host prefix, float32, identity layers left out."""
    g = torch.Generator().manual_seed(SEED)
    embeddings = F.normalize(torch.randn(VOCABULARY, WIDTH, generator=g), dim=1)
    salience = _unit(g)
    content = []
    for word, direction in _word_directions(g).items():
        embeddings[vocabulary()[word]] = direction
        content.append(vocabulary()[word])

    def tilt(rows, share: float) -> None:
        plain = embeddings[rows] - (embeddings[rows] @ salience)[..., None] * salience
        embeddings[rows] = (1 - abs(share)) ** 0.5 * F.normalize(plain, dim=-1) + (
            abs(share) ** 0.5 * (1 if share > 0 else -1) * salience
        )

    tilt(torch.arange(VOCABULARY), 1e-3)
    tilt(torch.tensor(content), SALIENCE["content"])
    tilt(END, SALIENCE["end"])
    tilt(START, SALIENCE["start"])
    embeddings *= EMBEDDING_NORM
    embeddings[END] *= 0.25
    positions = torch.zeros(CONTEXT, WIDTH)
    positions[:POSITIONS] = 0.1 * F.normalize(torch.randn(POSITIONS, WIDTH, generator=g), dim=1)
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=g))[0]
    mixed = (torch.eye(WIDTH) - torch.outer(salience, salience)) @ rotation

    head = WIDTH // HEADS
    query_bias, key = torch.zeros(WIDTH), torch.zeros(WIDTH, WIDTH)
    query_bias[::head] = ATTENTION_SHARPNESS * head**0.5
    key[::head] = salience
    attention = "encoder.layers.0.self_attn."
    return {
        "embeddings.token_embedding.weight": embeddings,
        "embeddings.position_embedding.weight": positions,
        f"{attention}q_proj.bias": query_bias,
        f"{attention}k_proj.weight": key,
        f"{attention}v_proj.weight": mixed.T.contiguous(),
        f"{attention}out_proj.weight": MIXING / WIDTH**0.5 * torch.eye(WIDTH),
    }


def host_state_dict() -> dict[str, Tensor]:
    """All tensors of a CLIP ViT-L/14 text model, with zeros where the encoder has nothing to say."""
    full = {}
    for i in range(LAYERS):
        layer = f"encoder.layers.{i}."
        for name in ("q", "k", "v", "out"):
            full[f"{layer}self_attn.{name}_proj.weight"] = torch.zeros(WIDTH, WIDTH)
            full[f"{layer}self_attn.{name}_proj.bias"] = torch.zeros(WIDTH)
        for norm in ("layer_norm1", "layer_norm2"):
            full[f"{layer}{norm}.weight"], full[f"{layer}{norm}.bias"] = torch.ones(WIDTH), torch.zeros(WIDTH)
        full[f"{layer}mlp.fc1.weight"], full[f"{layer}mlp.fc1.bias"] = (
            torch.zeros(4 * WIDTH, WIDTH),
            torch.zeros(4 * WIDTH),
        )
        full[f"{layer}mlp.fc2.weight"], full[f"{layer}mlp.fc2.bias"] = torch.zeros(WIDTH, 4 * WIDTH), torch.zeros(WIDTH)
    full["final_layer_norm.weight"], full["final_layer_norm.bias"] = torch.ones(WIDTH), torch.zeros(WIDTH)
    return full | text_encoder()


def encode(embeddings: Tensor) -> Tensor:
    """The encoder on token embeddings (B, 77, 768), as the host's CLIP computes it; returns (B, 77, 768).

    Only what is not zero is computed, which is why training can afford the full context.
    """
    weights = text_encoder()
    hidden = embeddings + weights["embeddings.position_embedding.weight"]
    normal = F.layer_norm(hidden, (WIDTH,))
    attention = "encoder.layers.0.self_attn."
    score = ATTENTION_SHARPNESS * normal @ weights[f"{attention}k_proj.weight"][0]
    causal = torch.triu(torch.full((CONTEXT, CONTEXT), float("-inf")), 1)
    share = (score[:, None, :] + causal).softmax(-1)
    value = normal @ (MIXING / WIDTH**0.5 * weights[f"{attention}v_proj.weight"].T)
    return F.layer_norm(hidden + share @ value, (WIDTH,))


def encode_ids(ids: Tensor) -> Tensor:
    """Context (B, 77, 768) of token ids (B, 77)."""
    return encode(text_encoder()["embeddings.token_embedding.weight"][ids])
