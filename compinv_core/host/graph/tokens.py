"""The tokens of a prompt and the phrase that caught each, before anything runs: what `web/tokens.js` draws as chips.

No checkpoint is loaded for it. The host's own tokenizers read the prompt, through the same functions as when it runs.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import comfy.sd
import folder_paths
import torch

from ...basics.errors import UserError, quoted
from ...words.phrases import fold_case
from ..family import FAMILIES, SD1, Family
from ..text.reading import EncoderReading, read_prompt
from ..text.spans import PhraseSpan, catch_phrases
from ..text.vocabulary import read_letters

if TYPE_CHECKING:
    from comfy.sd import CLIP

_NAME = "Prompt"
# What the editor and others replace before a prompt is queued.
_CHOICES = re.compile(r"(?<!\\)\{[^{}]*\}|__[\w/*-]+__")


def tokens_caught(question: dict[str, Any]) -> dict[str, Any]:
    """Say which tokens of a prompt belong to which phrase.

    Parameters
    ----------
    question : dict
        ``text`` and ``phrases``, a list; ``family`` if it is known, else it is one that has all embeddings of the text.

    Returns
    -------
    dict
        ``family``; ``chunks``, for each a list of tokens with ``text``, ``weight`` and ``phrase``, the position in
        ``phrases`` or None; and ``said``, sentences about phrases that catch nothing, embeddings without effect, and
        text that is replaced before it runs.

    Raises
    ------
    UserError
        When the host cannot read the prompt, or the question is another.
    """
    text, phrases, wanted = question.get("text"), question.get("phrases"), question.get("family")
    if not isinstance(text, str) or not isinstance(phrases, list) or not all(isinstance(p, str) for p in phrases):
        raise UserError("This address wants a `text` and a list of `phrases`.")
    family = _family_of(text, wanted)
    clip = _reader(family.name)
    once = {fold_case(phrase): phrase for phrase in reversed(phrases)}
    reading, caught = catch_phrases(clip, text, list(once.values()), _NAME)
    spans = [found for found in caught if isinstance(found, PhraseSpan)]
    owner = {position: phrases.index(span.phrase) for span in spans for position in span.by_encoder[0]}
    said = [f"The phrase {quoted(phrase)} is given twice." for phrase in phrases if phrase not in once.values()]
    said += [_sentence(found) for found in caught if isinstance(found, UserError)]
    unsaid = [word for word in reading.dropped if quoted(word.name) not in " ".join(said)]
    said += [f"The embedding {quoted(word.name)} takes no effect: {word.reason}." for word in unsaid]
    if _CHOICES.search(text):
        said.append("The chips show the text as it is typed; choices and wildcards are replaced when it is queued.")
    chunks = _chunks(clip, reading.encoders[0], owner)
    return {"family": family.name, "chunks": chunks, "said": said}


def _sentence(error: UserError) -> str:
    """A node's sentence without the name of the node."""
    text = str(error).removeprefix(f"{_NAME}: ")
    return text[:1].upper() + text[1:]


def _chunks(clip: CLIP, reading: EncoderReading, owner: dict[int, int]) -> list[list[dict[str, Any]]]:
    names = reading.encoder.tokenizer(clip).inv_vocab
    length = reading.encoder.context_length
    vectors = {
        position: f"{word.name} {number}/{len(word.positions)}" if len(word.positions) > 1 else word.name
        for word in reading.embeddings
        for number, position in enumerate(word.positions, 1)
    }
    chunks: list[list[dict[str, Any]]] = [[] for _ in reading.chunks]
    for position, token in reading.content:
        chunk, place = divmod(position, length)
        learned = isinstance(token, torch.Tensor)
        text = vectors[position] if learned else "".join(read_letters([names[token]]))
        weight = round(float(reading.weights[chunk][place]), 3)
        chunks[chunk].append({"text": text, "weight": weight, "phrase": owner.get(position)})
    return chunks


def _family_of(text: str, name: Any) -> Family:
    """The family of a name, else the first one in which most of the text's embeddings take effect."""
    if name is not None:
        found = next((family for family in FAMILIES if family.name == name), None)
        if found is None:
            raise UserError(f"There is no family {quoted(name)}.")
        return found
    if "embedding:" not in text:
        return SD1
    return min(FAMILIES, key=lambda family: len(read_prompt(_reader(family.name), text, _NAME).dropped))


@cache
def _reader(name: str) -> CLIP:
    """A CLIP of the host, by the name of its family, that can read and not encode: its text encoder has no weights."""
    family = next(family for family in FAMILIES if family.name == name)
    target = family.config.clip_target(family.config)
    clip = comfy.sd.CLIP(no_init=True)
    clip.tokenizer_options = {}
    clip.tokenizer = target.tokenizer(embedding_directory=folder_paths.get_folder_paths("embeddings"))
    clip.cond_stage_model = target.clip(device="meta", dtype=torch.float16)
    return clip
