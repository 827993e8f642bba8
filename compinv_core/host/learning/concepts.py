"""Concepts before their training: photos, masks, words and anchors, all checked; and what is read off them after it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from ... import __version__, logger
from ...basics.errors import UserError, listed, remark
from ...learning.concept import Concept, check_distinct_names
from ...learning.embedding_file import MAKER_KEY, anchors_to_text
from ...learning.pictures.photos import single_masks, stack_masks, stack_photos
from ...learning.pictures.sizes import by_size, fit_for, fitted
from ...learning.settings import InversionConfig
from ...semantic.anchors import REDUCTIONS, Anchors, equivalent_anchor_weight
from ...semantic.hold import SPHERE
from ...semantic.learned_token import LearnedToken, LearnedWord
from ...semantic.recoding import AnchorRecoder
from ...semantic.widths import Widths, names_of, parts_of
from ...training.watch import Watch
from ..family import Family
from ..text.encoder import load_anchors, token_embeddings, word_token_ids
from ..text.sentences import TemplateEncoder
from ..text.vocabulary import NearestToken, check_known_word, usual_norm

if TYPE_CHECKING:
    from comfy.sd import CLIP

_SHOWN_ELSEWHERE = ("resume", "saved_step", "save_every", "preview_every", "preview_prompt")


def check_concepts(clip: CLIP, config: InversionConfig, concepts: Sequence[Concept]) -> tuple[Concept, ...]:
    """Check everything about concepts to be learned together that can be checked without encoding a photo.

    Returns
    -------
    tuple of Concept
        See `checked_photos`; with masks where they count.

    Raises
    ------
    UserError
    """
    check_distinct_names(concepts)
    family = Family.of(config.method.node_name, clip=clip)
    checked = []
    for position, concept in enumerate(concepts):
        concept = checked_photos(family, concept)
        if concept.masks is not None and config.is_official:
            logger.info("The preset official_2024 repeats that the mask has no effect in the released code.")
            concept = dataclasses.replace(concept, masks=None)
        if concept.num_vectors > 1 and config.is_official:
            logger.info(
                "The preset official_2024 learns one vector for %s instead of %d: prompts of the released code hold "
                "only the first.",
                concept.name,
                concept.num_vectors,
            )
            concept = dataclasses.replace(concept, num_vectors=1)
        # The first concept's inputs are those of the training node itself.
        owner = f" of {concept.name}" if position else ""
        check_known_word(clip, concept.superclass, f"superclass{owner}")
        check_known_word(clip, concept.init_word, f"init_word{owner}")
        sentences_from = "custom_templates" if config.templates else "template"
        TemplateEncoder(clip, config.sentences, concept.num_vectors, concept.superclass, sentences_from)
        if config.preview_every and position == 0:
            TemplateEncoder(clip, [config.preview_prompt], concept.num_vectors, concept.superclass, "preview_prompt")
        checked.append(concept)
    sizes = [f"{concept.name} {'x'.join(map(str, reversed(concept.picture_size)))}" for concept in checked]
    if not family.size_conditioning and len({concept.picture_size for concept in checked}) > 1:
        raise UserError(f"The concepts' images have different sizes ({listed(sizes)}); bring all to one size first.")
    return tuple(checked)


def checked_photos(family: Family, concept: Concept) -> Concept:
    """Return a concept with its photos (n, H, W, 3) and masks (n, H, W) joined to one batch, float32, CPU.

    Where the family's models know sizes, to one batch for each size, after large photos were scaled down.

    Raises
    ------
    UserError
        When photos or masks cannot be learned from, or do not go together.
    """
    concept = _without_blank_masks(concept)
    if not family.size_conditioning:
        photos = stack_photos(concept.photos)
        masks = None if concept.masks is None else (stack_masks(concept.masks, photos),)
        return dataclasses.replace(concept, photos=(photos,), masks=masks)
    batches, masks, frames = [], [], []
    given = None if concept.masks is None else single_masks(concept.masks, sum(map(len, concept.photos)))
    for (height, width), group in by_size(concept.photos).items() or {(0, 0): []}.items():
        photos = stack_photos([picture for _, picture in group])
        fit = fit_for(height, width, family.most_pixels, family.pixels_per_cell)
        batches.append(fitted(photos, fit))
        frames.append(fit.frame)
        if given is not None:
            own, numbers = [given[number] for number, _ in group], [number + 1 for number, _ in group]
            masks.append(fitted(stack_masks(own, photos, numbers), fit))
    fitting = None if given is None else tuple(masks)
    return dataclasses.replace(concept, photos=tuple(batches), masks=fitting, frames=tuple(frames))


def _without_blank_masks(concept: Concept) -> Concept:
    # Load Image gives a blank mask for a picture in which nobody has painted one.
    if not concept.masks or any(mask.any() for mask in concept.masks):
        return concept
    remark(
        f"No photo of {concept.name} has a mask, so the background is learned, too: paint the concept in the mask "
        "editor of each Load Image.",
        "note",
    )
    return dataclasses.replace(concept, masks=None)


def dictionary(clip: CLIP, config: InversionConfig, superclass: str, anchors: Anchors | None) -> Anchors | None:
    """Return the anchors with the superclass among them, or None where there is nothing to be held by.

    Raises
    ------
    UserError
        When the anchors were loaded with another text encoder.
    """
    if anchors is None or (config.anchor_weight == 0 and not config.bounds.has_bound):
        return None
    own = load_anchors(clip, [superclass])
    if config.is_official:
        return own
    here = load_anchors(clip, anchors.words[:1]).vectors
    if here.shape != anchors.vectors[:1].shape or not torch.allclose(here, anchors.vectors[:1], atol=1e-3):
        raise UserError(
            "The anchors were loaded with another text encoder; connect the same `clip` to Load Anchors and here."
        )
    return anchors.merged(own)


def context_nouns(config: InversionConfig, superclass: str, anchors: Anchors | None) -> tuple[str, ...]:
    """Return the nouns that are to stay as they are beside the word; empty where there is no context loss."""
    if anchors is None or not config.context_weight or config.preset == "official_2024":
        return ()
    own = anchors.index(superclass)
    return tuple(word for index, word in enumerate(anchors.words) if index != own)


def learned_token(
    clip: CLIP, config: InversionConfig, concept: Concept, anchors: Anchors | None, device: torch.device
) -> LearnedToken | LearnedWord:
    """Return the word to be learned, at its start, on the device to train on; `anchors` are its `dictionary`."""
    widths = Family.of(config.method.node_name, clip=clip).widths
    initial = parts_of(initial_vectors(clip, concept.init_word, concept.num_vectors), widths)
    dictionaries = [None] * len(initial) if anchors is None else anchors.parts()
    tokens = []
    for which, (vectors, nouns, name) in enumerate(zip(initial, dictionaries, names_of(widths), strict=True)):
        recoder = None
        if nouns is not None:
            position = nouns.token_ids.index(word_token_ids(clip, concept.superclass))
            nearest = NearestToken(clip, which)
            recoder = AnchorRecoder(nouns, position, concept.num_vectors, config.recoder_settings(), nearest, name)
        norm = usual_norm(clip, which) if config.bounds.kind == SPHERE else None
        tokens.append(LearnedToken(vectors.to(device), recoder, config.reduction, config.bounds, norm))
    return tokens[0] if len(tokens) == 1 else LearnedWord(tokens, widths)


def initial_vectors(clip: CLIP, word: str, count: int) -> torch.Tensor:
    """Return the start of the learned vectors (count, D), float32, CPU.

    The word's tokens, one each, and their mean for every further vector. With fewer vectors than tokens, every vector
    starts at the mean.
    """
    tokens = token_embeddings(clip, word_token_ids(clip, word))
    mean = tokens.mean(0, keepdim=True)
    if count < len(tokens):
        return mean.repeat(count, 1)
    return torch.cat([tokens, mean.repeat(count - len(tokens), 1)])


def learned_concept(
    config: InversionConfig,
    concept: Concept,
    token: LearnedToken | LearnedWord,
    widths: Widths,
    model_patched: bool,
    watch: Watch | None,
) -> Concept:
    """Return the concept with what was learned, and everything about its making as text for the file's header."""
    import comfyui_version

    active = token.active_anchors()
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key not in _SHOWN_ELSEWHERE}
    settings |= {"init_word": concept.init_word, "num_vectors": concept.num_vectors}
    metadata = {
        **{key: str(value) for key, value in settings.items()},
        "anchor_weight": str(config.anchor_weight if active and config.bounds.has_loss else 0.0),
        "anchor_reduction": config.reduction,
        "anchors": anchors_to_text(active),
        "method": config.method.name + (" with semantic inversion" if active else ""),
        "model_patched": str(model_patched),
        MAKER_KEY: __version__,
        "comfyui_version": comfyui_version.__version__,
        "torch_version": torch.__version__,
    }
    if watch is not None:
        metadata["composition"] = json.dumps({row.step: round(row.score, 4) for row in watch.rows})
        metadata["kept_step"] = str(watch.result_step)
    vectors = token.vectors.detach().float().cpu()
    return dataclasses.replace(concept, vectors=vectors, widths=widths, metadata=metadata)


def log_equivalent_weights(config: InversionConfig, anchors: Anchors | None) -> None:
    """Log what the anchor weight would be under the other reductions, where there are anchors."""
    if anchors is None:
        return
    for part, name in zip(anchors.parts(), names_of(anchors.widths), strict=True):
        count, width = part.vectors.shape
        equals = partial(equivalent_anchor_weight, config.anchor_weight, config.reduction, width=width, anchors=count)
        others = [
            f"{equals(reduction):.4g} under {reduction}" for reduction in REDUCTIONS if reduction != config.reduction
        ]
        where = f" for {name}" if name else ""
        logger.info(
            "anchor_weight %g under %s equals %s%s.", config.anchor_weight, config.reduction, listed(others), where
        )
