"""The host's text encoder at work: words to token embeddings, and rows of tokens to conditioning."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import comfy.model_management
import torch

from ...basics.errors import UserError, quoted
from ...learning.condition import Condition
from ...semantic.anchors import Anchors
from ..family import Family, text_encoders, tokenizer_of
from .listening import Token

if TYPE_CHECKING:
    from comfy.sd import CLIP


def word_token_ids(clip: CLIP, word: str) -> tuple[int, ...]:
    """Return the token ids of one or more words, without start and end; brackets and colons mean themselves."""
    return tuple(tokenizer_of(clip).tokenizer(word)["input_ids"][1:-1])


def load_anchors(clip: CLIP, words: Sequence[str]) -> Anchors:
    """Look nouns up in the text encoder's input embeddings.

    Parameters
    ----------
    words : sequence of str
        Nouns; words with the same tokens are folded into the first.

    Returns
    -------
    Anchors
        A noun of several tokens is the mean of its tokens; several text encoders' embeddings stand side by side.

    Raises
    ------
    UserError
        When a word has no letters or digits, or none is given.
    """
    found: dict[tuple[int, ...], str] = {}
    for word in words:
        if not re.search(r"[^\W_]", word):
            raise UserError(f"The anchor {quoted(word)} has no letters; write nouns, separated by commas.")
        found.setdefault(word_token_ids(clip, word), word)
    if not found:
        raise UserError("The list of anchors is empty; choose a vocabulary or type extra_words.")
    ids = list(found)
    flat = token_embeddings(clip, [i for group in ids for i in group])
    vectors = torch.stack([part.mean(0) for part in flat.split([len(group) for group in ids])])
    return Anchors(tuple(found.values()), vectors, tuple(ids), Family.of("The text encoder", clip=clip).widths)


def token_embeddings(clip: CLIP, ids: Sequence[int], which: int | None = None) -> torch.Tensor:
    """Return the input embeddings of n tokens.

    Parameters
    ----------
    which : int, optional
        Position of a text encoder, for its part alone.

    Returns
    -------
    Tensor (n, D), float32, CPU; a normal tensor, also when called in inference mode
        Those of several text encoders side by side.
    """
    comfy.model_management.load_models_gpu([clip.patcher])
    encoders = text_encoders(clip) if which is None else text_encoders(clip)[which : which + 1]
    with torch.inference_mode(False), torch.no_grad():
        rows = torch.tensor(list(ids), device=clip.patcher.load_device)
        tables = [encoder.model(clip).transformer.get_input_embeddings() for encoder in encoders]
        parts = [table(rows, out_dtype=torch.float32).cpu() for table in tables]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def encode_chunk(clip: CLIP, lines: Sequence[tuple[Sequence[Token], Sequence[float]]]) -> Condition:
    """Return the conditioning of one chunk, as the host encodes it, with gradients where the vectors have them.

    Parameters
    ----------
    clip : CLIP
        Loaded.
    lines : sequence of (tokens, weights), both of length 77
        For each text encoder: token ids, with vectors (D,) in the place of tokens, and what the host weighs them by.

    Returns
    -------
    Condition
        Of one picture.
    """
    model = clip.cond_stage_model
    model.reset_clip_options()
    if clip.layer_idx is not None:
        model.set_clip_options({"layer": clip.layer_idx})
    model.set_clip_options({"execution_device": clip.patcher.load_device})
    encoders = text_encoders(clip)
    encoded = [_encoded(e.model(clip), *line) for e, line in zip(encoders, lines, strict=True)]
    parts = [tokens for tokens, _ in encoded]
    pooled = [pooled for encoder, (_, pooled) in zip(encoders, encoded, strict=True) if encoder.gives_pooled]
    return Condition(parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1), pooled[0] if pooled else None)


def as_conditioning(condition: Condition) -> list:
    """Return the host's CONDITIONING of a condition of one picture."""
    options = {} if condition.pooled is None else {"pooled_output": condition.pooled.detach().cpu()}
    return [[condition.tokens.detach().cpu(), options]]


@contextmanager
def text_encoder_gradients(clip: CLIP) -> Iterator[None]:
    """Let a gradient pass through the host's text encoders while the block runs.

    Their layers add in place to the tensor that their layer norms have saved for backward.
    """
    text_models: list[Any] = [encoder.model(clip).transformer.text_model for encoder in text_encoders(clip)]
    layers = [layer for text_model in text_models for layer in text_model.encoder.layers]
    with inputs_copied([norm for layer in layers for norm in (layer.layer_norm1, layer.layer_norm2)]):
        yield


@contextmanager
def inputs_copied(norms: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Give norms a copy of their input, which may then be changed in place, while the block runs.

    Values do not change, and the hooks are taken off in the end.
    """
    hooks = [norm.register_forward_pre_hook(lambda module, inputs: (inputs[0].clone(), *inputs[1:])) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _encoded(
    text_model: Any, tokens: Sequence[Token], weights: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    if all(weight == 1.0 for weight in weights):
        # Stays on the text encoder's device, where the host's function for weights moves the result off it.
        encoded, pooled, *_ = text_model([list(tokens)])
    else:
        encoded, pooled, *_ = text_model.encode_token_weights([list(zip(tokens, weights, strict=True))])
    return encoded, pooled
