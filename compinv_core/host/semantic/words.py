"""Words that a person has already: read from any embedding file of the host, looked at, and repaired without photos."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
import torch

from ... import __version__
from ...basics.errors import UserError, quoted
from ...basics.names import check_name
from ...basics.report import Report
from ...learning.concept import Concept
from ...learning.embedding_file import MAKER_KEY, anchors_to_text, read_concept, write_concept
from ...semantic.adjustment import adjusted, anchor_codes
from ...semantic.anchors import Anchors, weighed_alike
from ...semantic.inspection import Inspection, Vocabulary, inspect
from ...semantic.widths import names_of, parts_of
from ...semantic.word_map import draw_word_map
from ..family import Family, maker_of, tokenizer_of
from ..folders import embedding_folder
from ..learning.composing import word_composition
from ..text.encoder import load_anchors, token_embeddings
from ..text.vocabulary import WORD_END, check_known_word, read_letters

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP

INSPECT_NODE, ADJUST_NODE = "Inspect Embedding", "Adjust Embedding"
NO_EMBEDDING = "choose an embedding"


def embedding_names() -> list[str]:
    """Return what can be chosen: `NO_EMBEDDING`, and the files in the host's embedding folders."""
    return [NO_EMBEDDING, *folder_paths.get_filename_list("embeddings")]


def embedding_fingerprint(name: str) -> tuple[int, int]:
    """Return what changes when the file does, for the host's cache."""
    path = folder_paths.get_full_path("embeddings", name)
    return (Path(path).stat().st_size, Path(path).stat().st_mtime_ns) if path else (0, 0)


def chosen_word(clip: CLIP, name: str, concept: Concept | None, node: str) -> Concept:
    """Return a learned concept, or the one in an embedding file.

    Raises
    ------
    UserError
        When none is chosen, or the file is missing, broken, or of another family.
    """
    family = Family.of(node, clip=clip)
    if concept is not None:
        if concept.vectors is None:
            raise UserError(f"{node}: the concept {quoted(concept.name)} has not been learned yet; connect a training.")
        if concept.vectors.shape[1] != family.width:
            maker = maker_of(concept.vectors.shape[1]) or "another model"
            raise UserError(
                f"{node}: the concept {quoted(concept.name)} was learned for {maker} and the text encoder is that of "
                f"{family.name}; connect `clip` to the checkpoint of the training."
            )
        return concept
    if name == NO_EMBEDDING:
        raise UserError(f"{node} has no word yet; choose a file in `embedding`, or connect `concept`.")
    path = folder_paths.get_full_path("embeddings", name)
    if path is None:
        raise UserError(f"{node}: there is no embedding {quoted(name)} in models/embeddings; choose one that is there.")
    return read_concept(Path(path), family.widths)


def inspect_word(
    clip: CLIP, word: Concept, anchors: Anchors | None, superclass: str = "", model: ModelPatcher | None = None
) -> tuple[Inspection, torch.Tensor, Report]:
    """Look at a word; its class noun, given or in its file, is among the anchors.

    Parameters
    ----------
    model : ModelPatcher, optional
        To measure how the word shares its attention with other nouns.

    Returns
    -------
    inspection : Inspection
    picture : Tensor (1, h, w, 3), float32 in [0, 1]
        One for each text encoder.
    report : Report
        A row for each vector.

    Raises
    ------
    UserError
        Also without anchors and class noun, and with a model but no class noun.
    """
    assert word.vectors is not None
    noun = superclass.strip() or word.superclass
    nouns, own = _nouns(clip, anchors, noun, INSPECT_NODE)
    composition = None
    if model is not None:
        if not noun:
            raise UserError(
                f"{INSPECT_NODE}: `model` measures the word against its class noun, which is not known; type it into "
                "`superclass`, or leave `model` unconnected."
            )
        composition = word_composition(model, clip, word.vectors, noun, anchors, INSPECT_NODE)
    looks, pictures = [], []
    widths = Family.of(INSPECT_NODE, clip=clip).widths
    for which, (part, dictionary, encoder) in enumerate(
        zip(parts_of(word.vectors, widths), nouns.parts(), names_of(widths), strict=True)
    ):
        vocabulary = _vocabulary(clip, which)
        looks.append(inspect(part, dictionary, vocabulary, own, encoder))
        pictures.append(draw_word_map(part, dictionary, vocabulary.vectors, f"{word.name} {encoder}".strip()))
    found = Inspection.of(looks, composition)
    rows: list[Mapping[str, Any]] = [
        {"vector": number, **dataclasses.asdict(facts)} for number, facts in found.numbered()
    ]
    summary: dict[str, Any] = {"verdict": found.verdict, "usual norm": found.usual_norm}
    if composition is not None:
        summary |= {"composition": composition.score, "takes": composition.takes}
    report = Report("embedding", {}, {"name": word.name, "anchors": nouns.words}, summary=summary, rows=rows)
    return found, torch.cat(pictures), report


def adjust_word(
    clip: CLIP,
    word: Concept,
    anchors: Anchors | None,
    superclass: str,
    strength: float,
    norm_strength: float,
    filename: str,
) -> Concept:
    """Repair a word and write it as a new embedding file.

    Parameters
    ----------
    superclass : str
        The class noun; empty takes the one in the file, if there is one.
    strength, norm_strength : float
        See `semantic.adjustment.adjusted`.
    filename : str
        Without ending; empty takes the name with "-adjusted".

    Raises
    ------
    UserError
        Also where the file would replace the word that it comes from.
    """
    assert word.vectors is not None
    for name, share in (("strength", strength), ("norm", norm_strength)):
        if not 0 <= share <= 1:
            raise UserError(f"{ADJUST_NODE}: {name} is {share:g}; give a share from 0 to 1.")
    noun = superclass.strip() or word.superclass
    nouns, own = _nouns(clip, anchors, noun, ADJUST_NODE)
    name = check_name(filename.strip() or f"{word.name}-adjusted", "filename")
    if name.casefold() == word.name.casefold():
        raise UserError(f"{ADJUST_NODE}: filename is that of the word itself, which is kept; choose another name.")
    repaired, weights = [], []
    for part, dictionary in zip(parts_of(word.vectors, nouns.widths), nouns.parts(), strict=True):
        codes = anchor_codes(part, dictionary, own)
        points = codes @ dictionary.vectors
        norm = float((dictionary.vectors[own] if own is not None else points.mean(0)).norm())
        repaired.append(adjusted(part, points, strength, norm, norm_strength))
        weights.append(dictionary.weights(codes.mean(0)))
    metadata = {
        **word.metadata, "adjusted_from": word.name, "adjusted_strength": str(strength),
        "adjusted_norm": str(norm_strength), "anchors": anchors_to_text(weighed_alike(weights)),
        MAKER_KEY: __version__,
    }  # fmt: skip
    vectors = torch.cat(repaired, dim=1)
    concept = Concept(name, noun, vectors, metadata, num_vectors=len(vectors), widths=nouns.widths)
    write_concept(concept, embedding_folder() / f"{name}.safetensors")
    return concept


def _nouns(clip: CLIP, anchors: Anchors | None, superclass: str, node: str) -> tuple[Anchors, int | None]:
    """The anchors with the class noun among them, and its position."""
    if not superclass and anchors is None:
        raise UserError(
            f"{node}: there is nothing to compare the word with; connect Load Anchors to `anchors`, or type the class "
            "noun into `superclass`."
        )
    if not superclass:
        assert anchors is not None
        if anchors.vectors.shape[1] != Family.of(node, clip=clip).width:
            raise UserError(
                f"{node}: `anchors` were loaded with another text encoder; connect the same `clip` to Load Anchors and "
                "here."
            )
        return anchors, None
    check_known_word(clip, superclass, "superclass")
    own = load_anchors(clip, [superclass])
    merged = own if anchors is None else anchors.merged(own)
    return merged, merged.token_ids.index(own.token_ids[0])


def _vocabulary(clip: CLIP, which: int) -> Vocabulary:
    """Whole words of a text encoder."""
    names = tokenizer_of(clip).inv_vocab
    whole = [index for index, name in names.items() if name.endswith(WORD_END) and name[:-4].isalpha()]
    return Vocabulary(["".join(read_letters([names[i]])) for i in whole], token_embeddings(clip, whole, which))
