"""The host's CLIP-L: words to token embeddings, and template sentences with learned vectors to conditioning."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import comfy.model_management
import torch

from ...anchors import Anchors
from ...errors import UserError
from ...words.sentences import split_template, with_class
from ..family import text_parts

if TYPE_CHECKING:
    from comfy.sd import CLIP

# Byte-pair encoding cuts gibberish into many scraps and real compound words into a few long pieces.
_MOST_PIECES = 3
_LEAST_MEAN_PIECE = 2.5
_WORD_END = "</w>"


def word_token_ids(clip: CLIP, word: str) -> tuple[int, ...]:
    """Return the token ids of a noun, without start and end.

    Parameters
    ----------
    clip : CLIP
    word : str
        One or more words.

    Returns
    -------
    tuple of int
    """
    _, tokenizer = text_parts(clip)
    return tuple(tokenizer.tokenizer(word)["input_ids"][1:-1])


def check_known_word(clip: CLIP, word: str, input_name: str) -> None:
    """Refuse text that is no word to the text encoder: no letters, or cut into scraps by its vocabulary.

    Parameters
    ----------
    clip : CLIP
    word : str
    input_name : str
        The input to be named in the sentence.

    Raises
    ------
    UserError
    """
    _, tokenizer = text_parts(clip)
    for part in re.split(r"[\s'-]+", word):
        pieces = [tokenizer.inv_vocab[i].replace(_WORD_END, "") for i in word_token_ids(clip, part)]
        scraps = len(pieces) > _MOST_PIECES or sum(map(len, pieces)) < _LEAST_MEAN_PIECE * len(pieces)
        # A short word such as "tv" is one piece of its own.
        if not re.fullmatch("[A-Za-z]+", part) or (scraps and len(pieces) > 1):
            raise UserError(
                f"{input_name}: {part!r} is not a word that the text encoder knows "
                f"(it reads {' + '.join(map(repr, pieces))}); type a common English noun, such as cat."
            )


def load_anchors(clip: CLIP, words: Sequence[str]) -> Anchors:
    """Look nouns up in the text encoder's input embeddings.

    Parameters
    ----------
    clip : CLIP
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
            raise UserError(f"The anchor {word!r} has no letters; write nouns, separated by commas.")
        found.setdefault(word_token_ids(clip, word), word)
    if not found:
        raise UserError("The list of anchors is empty; choose a vocabulary or type extra_words.")
    ids = list(found)
    flat = token_embeddings(clip, [i for group in ids for i in group])
    vectors = torch.stack([part.mean(0) for part in flat.split([len(group) for group in ids])])
    return Anchors(tuple(found.values()), vectors, tuple(ids))


def token_embeddings(clip: CLIP, ids: Sequence[int]) -> torch.Tensor:
    """Return the input embeddings of tokens.

    Parameters
    ----------
    clip : CLIP
    ids : sequence of int, length n

    Returns
    -------
    Tensor (n, D), float32, CPU; a normal tensor, also when called in inference mode
    """
    text_model, _ = text_parts(clip)
    comfy.model_management.load_models_gpu([clip.patcher])
    with torch.inference_mode(False), torch.no_grad():
        rows = torch.tensor(list(ids), device=clip.patcher.load_device)
        return text_model.transformer.get_input_embeddings()(rows, out_dtype=torch.float32).cpu()


class NearestToken:
    """Finds the vocabulary token whose embedding has the largest cosine similarity with a vector.

    Parameters
    ----------
    clip : CLIP
    """

    def __init__(self, clip: CLIP) -> None:
        _, tokenizer = text_parts(clip)
        self._names = tokenizer.inv_vocab
        self._unit = torch.nn.functional.normalize(token_embeddings(clip, range(len(self._names))), dim=-1)

    def __call__(self, vector: torch.Tensor) -> tuple[str, float]:
        """Return the token's text and the cosine.

        Parameters
        ----------
        vector : Tensor (D,)

        Returns
        -------
        tuple of (str, float)
        """
        cosine = self._unit @ torch.nn.functional.normalize(vector.detach().float().cpu(), dim=-1)
        best = int(cosine.argmax())
        return self._names[best].replace(_WORD_END, ""), float(cosine[best])


class TemplateEncoder:
    """Encodes template sentences with vectors in the place of ``{}``, through the host's own text model.

    The vectors stand in the token list as `embedding:` vectors do, so clip skip and LoRA on the text encoder act as in
    a prompt. To be used inside `text_encoder_gradients` when a gradient is wanted.

    Parameters
    ----------
    clip : CLIP
    templates : sequence of str
    num_vectors : int
    superclass : str
        What stands for ``{class}`` in the templates.
    input_name : str
        The input to be named when a template is wrong.

    Raises
    ------
    UserError
        When a template does not fit into the 77 positions.
    """

    def __init__(
        self,
        clip: CLIP,
        templates: Sequence[str],
        num_vectors: int,
        superclass: str,
        input_name: str = "custom_templates",
    ) -> None:
        self._clip = clip
        _, tokenizer = text_parts(clip)
        self._sentences: list[tuple[list[int], list[int]]] = []
        for template in templates:
            before, after = split_template(with_class(template, superclass), input_name)
            head = [tokenizer.start_token, *word_token_ids(clip, before)]
            tail = [*word_token_ids(clip, after), tokenizer.end_token]
            room = tokenizer.max_length - len(head) - len(tail) - num_vectors
            if room < 0:
                raise UserError(
                    f"{input_name}: {template!r} with {num_vectors} vectors is {-room} tokens too long for the text "
                    "encoder; take a shorter sentence or lower num_vectors."
                )
            self._sentences.append((head, tail + [tokenizer.pad_token] * room))

    def __call__(self, index: int, vectors: torch.Tensor) -> torch.Tensor:
        """Return the conditioning of one sentence.

        Parameters
        ----------
        index : int
            Of the template.
        vectors : Tensor (k, D), float32

        Returns
        -------
        Tensor (1, 77, D), float32, on the text encoder's device
        """
        head, tail = self._sentences[index]
        return encode_tokens(self._clip, [*head, *vectors, *tail])


def sentence_tokens(clip: CLIP, sentence: str, input_name: str) -> list[int]:
    """Return the 77 tokens of a plain sentence, without weights.

    Parameters
    ----------
    clip : CLIP
    sentence : str
    input_name : str
        The input to be named when the sentence is too long.

    Returns
    -------
    list of int

    Raises
    ------
    UserError
        When the sentence does not fit into the 77 positions.
    """
    _, tokenizer = text_parts(clip)
    tokens = [tokenizer.start_token, *word_token_ids(clip, sentence), tokenizer.end_token]
    room = tokenizer.max_length - len(tokens)
    if room < 0:
        raise UserError(f"{input_name} is {-room} tokens too long for the text encoder; shorten it.")
    return [*tokens, *[tokenizer.pad_token] * room]


def encode_tokens(clip: CLIP, tokens: Sequence[int | torch.Tensor]) -> torch.Tensor:
    """Return the conditioning of a row of tokens.

    Parameters
    ----------
    clip : CLIP
        Loaded.
    tokens : sequence of int or Tensor (D,), of length 77
        Token ids, and vectors in the place of tokens.

    Returns
    -------
    Tensor (1, 77, D), float32, on the text encoder's device
    """
    text_model: Any = text_parts(clip)[0]
    model = clip.cond_stage_model
    model.reset_clip_options()
    if clip.layer_idx is not None:
        model.set_clip_options({"layer": clip.layer_idx})
    model.set_clip_options({"execution_device": clip.patcher.load_device})
    return text_model([list(tokens)])[0]


@contextmanager
def text_encoder_gradients(clip: CLIP) -> Iterator[None]:
    """Let a gradient pass through the host's text encoder while the block runs.

    Its layers add in place to the tensor that their layer norms have saved for backward. Hooks give the norms a copy of
    their input instead; values do not change, and the hooks are taken off in the end.

    Parameters
    ----------
    clip : CLIP
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
