"""The host's text encoder at work: words to token embeddings, and rows of tokens to conditioning."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import comfy.model_management
import torch

from ...basics.errors import UserError, quoted
from ...semantic.anchors import Anchors
from ..family import text_parts
from .listening import Token

if TYPE_CHECKING:
    from comfy.sd import CLIP


def word_token_ids(clip: CLIP, word: str) -> tuple[int, ...]:
    """Return the token ids of one or more words, without start and end; brackets and colons mean themselves."""
    _, tokenizer = text_parts(clip)
    return tuple(tokenizer.tokenizer(word)["input_ids"][1:-1])


def load_anchors(clip: CLIP, words: Sequence[str]) -> Anchors:
    """Look nouns up in the text encoder's input embeddings.

    Parameters
    ----------
    words : sequence of str
        Nouns; words with the same tokens are folded into the first.

    Returns
    -------
    Anchors
        A noun of several tokens is the mean of its tokens.

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
    return Anchors(tuple(found.values()), vectors, tuple(ids))


def token_embeddings(clip: CLIP, ids: Sequence[int]) -> torch.Tensor:
    """Return the input embeddings of n tokens.

    Returns
    -------
    Tensor (n, D), float32, CPU; a normal tensor, also when called in inference mode
    """
    text_model, _ = text_parts(clip)
    comfy.model_management.load_models_gpu([clip.patcher])
    with torch.inference_mode(False), torch.no_grad():
        rows = torch.tensor(list(ids), device=clip.patcher.load_device)
        return text_model.transformer.get_input_embeddings()(rows, out_dtype=torch.float32).cpu()


def encode_chunk(clip: CLIP, tokens: Sequence[Token], weights: Sequence[float]) -> torch.Tensor:
    """Return the conditioning of one chunk, as the host encodes it, with gradients where the vectors have them.

    Parameters
    ----------
    clip : CLIP
        Loaded.
    tokens : sequence of int or Tensor (D,), of length 77
        Token ids, and vectors in the place of tokens.
    weights : sequence of float, of length 77

    Returns
    -------
    Tensor (1, 77, D), float32
    """
    text_model: Any = text_parts(clip)[0]
    model = clip.cond_stage_model
    model.reset_clip_options()
    if clip.layer_idx is not None:
        model.set_clip_options({"layer": clip.layer_idx})
    model.set_clip_options({"execution_device": clip.patcher.load_device})
    if all(weight == 1.0 for weight in weights):
        # Stays on the text encoder's device, where the host's function for weights moves the result off it.
        return text_model([list(tokens)])[0]
    return text_model.encode_token_weights([list(zip(tokens, weights, strict=True))])[0]


@contextmanager
def text_encoder_gradients(clip: CLIP) -> Iterator[None]:
    """Let a gradient pass through the host's text encoder while the block runs.

    Its layers add in place to the tensor that their layer norms have saved for backward. Hooks give the norms a copy of
    their input instead; values do not change, and the hooks are taken off in the end.
    """
    layers: Any = text_parts(clip)[0].transformer.text_model.encoder.layers
    hooks = [
        norm.register_forward_pre_hook(lambda module, inputs: (inputs[0].clone(), *inputs[1:]))
        for layer in layers
        for norm in (layer.layer_norm1, layer.layer_norm2)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
