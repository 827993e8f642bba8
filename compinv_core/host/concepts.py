"""Concepts before their training: photos, masks, words and anchors, all checked; and what is read off them after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from .. import __version__, logger
from ..anchors import REDUCTIONS, Anchors, equivalent_anchor_weight
from ..concept import Concept
from ..concept_images import ConceptImages, check_distinct_names
from ..embedding_file import MAKER_KEY, anchors_to_text
from ..errors import UserError
from ..inversion_config import InversionConfig
from ..learned_token import LearnedToken
from ..photos import stack_photos
from ..recoding import AnchorRecoder
from .text.encoder import load_anchors, token_embeddings, word_token_ids
from .text.sentences import TemplateEncoder
from .text.vocabulary import NearestToken, check_known_word
from .training_inputs import checked_masks

if TYPE_CHECKING:
    from comfy.sd import CLIP

_SHOWN_ELSEWHERE = ("name", "superclass", "resume", "save_every", "preview_every", "preview_prompt")


@dataclass(frozen=True, eq=False)
class CheckedConcept:
    """One concept, ready to be trained.

    Attributes
    ----------
    name, superclass, init_word : str
    num_vectors : int
    photos : Tensor (n, H, W, 3), float32, CPU
    masks : Tensor (n, H, W), float32, CPU, or None
    dictionary : Anchors or None
        With the superclass among them; None holds the word by no anchors.
    class_images : tuple of Tensor (b, H, W, C), 0 to 1, or None
        The person's own pictures of the class, not checked here.
    """

    name: str
    superclass: str
    init_word: str
    num_vectors: int
    photos: torch.Tensor
    masks: torch.Tensor | None
    dictionary: Anchors | None
    class_images: tuple[torch.Tensor, ...] | None


def concept_images(
    config: InversionConfig,
    images: torch.Tensor | Sequence[torch.Tensor],
    mask: torch.Tensor | Sequence[torch.Tensor] | None,
    class_images: torch.Tensor | Sequence[torch.Tensor] | None = None,
) -> ConceptImages:
    """Join the concept that a training's settings name with its photos.

    Parameters
    ----------
    config : InversionConfig
    images : Tensor (n, H, W, 3) or a sequence of such batches
    mask : Tensor (n, H, W) or a sequence, optional
    class_images : Tensor (m, H, W, 3) or a sequence, optional

    Returns
    -------
    ConceptImages
    """
    return ConceptImages(
        _batches(images) or (),
        config.name,
        config.superclass,
        config.init_word,
        config.num_vectors,
        _batches(mask),
        class_images=_batches(class_images),
    )


def check_concepts(
    clip: CLIP, config: InversionConfig, concepts: Sequence[ConceptImages], anchors: Anchors | None
) -> tuple[CheckedConcept, ...]:
    """Check everything about concepts that can be checked without encoding a photo.

    Parameters
    ----------
    clip : CLIP
    config : InversionConfig
    concepts : sequence of ConceptImages
        To be learned together.
    anchors : Anchors, optional
        Loaded with the same `clip`.

    Returns
    -------
    tuple of CheckedConcept

    Raises
    ------
    UserError
    """
    check_distinct_names(tuple(concepts))
    checked = []
    for position, concept in enumerate(concepts):
        photos = stack_photos(concept.images)
        masks = checked_masks(concept.masks, photos, config)
        # The first concept's inputs are those of the training node itself.
        owner = f" of {concept.name}" if position else ""
        check_known_word(clip, concept.superclass, f"superclass{owner}")
        check_known_word(clip, concept.init_word, f"init_word{owner}")
        dictionary = _dictionary(clip, config, concept.superclass, anchors)
        sentences_from = "custom_templates" if config.templates else "template"
        TemplateEncoder(clip, config.sentences, concept.num_vectors, concept.superclass, sentences_from)
        if config.preview_every and position == 0:
            TemplateEncoder(clip, [config.preview_prompt], concept.num_vectors, concept.superclass, "preview_prompt")
        checked.append(
            CheckedConcept(
                concept.name,
                concept.superclass,
                concept.init_word,
                concept.num_vectors,
                photos,
                masks,
                dictionary,
                concept.class_images,
            )
        )
    sizes = {concept.name: f"{concept.photos.shape[2]}x{concept.photos.shape[1]}" for concept in checked}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise UserError(f"The concepts' images have different sizes ({listed}); bring all of them to one size first.")
    return tuple(checked)


def learned_token(clip: CLIP, config: InversionConfig, concept: CheckedConcept, device: torch.device) -> LearnedToken:
    """Return the word to be learned, at its start.

    Parameters
    ----------
    clip : CLIP
    config : InversionConfig
    concept : CheckedConcept
    device : torch.device
        To train on.

    Returns
    -------
    LearnedToken
    """
    recoder, dictionary = None, concept.dictionary
    if dictionary is not None:
        position = dictionary.token_ids.index(word_token_ids(clip, concept.superclass))
        recoder = AnchorRecoder(
            dictionary, position, concept.num_vectors, config.recoder_settings(), NearestToken(clip)
        )
    initial = initial_vectors(clip, concept.init_word, concept.num_vectors)
    return LearnedToken(initial.to(device), recoder, config.reduction, config.trained_vectors)


def initial_vectors(clip: CLIP, word: str, count: int) -> torch.Tensor:
    """Return the start of the learned vectors: the word's tokens, one each, and their mean for every further vector.

    With fewer vectors than tokens, every vector starts at the mean.

    Parameters
    ----------
    clip : CLIP
    word : str
    count : int

    Returns
    -------
    Tensor (count, D), float32, CPU
    """
    tokens = token_embeddings(clip, word_token_ids(clip, word))
    mean = tokens.mean(0, keepdim=True)
    if count < len(tokens):
        return mean.repeat(count, 1)
    return torch.cat([tokens, mean.repeat(count - len(tokens), 1)])


def learned_concept(
    config: InversionConfig, concept: CheckedConcept, token: LearnedToken, model_patched: bool
) -> Concept:
    """Return what was learned, with everything about its making as text for the file's header.

    Parameters
    ----------
    config : InversionConfig
    concept : CheckedConcept
    token : LearnedToken
    model_patched : bool
        Whether the model had patches, of a LoRA for example.

    Returns
    -------
    Concept
    """
    import comfyui_version

    active = {} if token.recoder is None else token.recoder.active()
    settings = {key: value for key, value in asdict(config).items() if key not in _SHOWN_ELSEWHERE}
    settings |= {"init_word": concept.init_word, "num_vectors": concept.num_vectors}
    metadata = {
        **{key: str(value) for key, value in settings.items()},
        "anchor_weight": str(config.anchor_weight if active else 0.0),
        "anchor_reduction": config.reduction,
        "anchors": anchors_to_text(active),
        "method": config.method + (" with semantic inversion" if active else ""),
        "model_patched": str(model_patched),
        MAKER_KEY: __version__,
        "comfyui_version": comfyui_version.__version__,
        "torch_version": torch.__version__,
    }
    return Concept(concept.name, concept.superclass, token.vectors.detach().float().cpu(), metadata)


def log_equivalent_weights(config: InversionConfig) -> None:
    """Log what the anchor weight would be under the other reductions.

    Parameters
    ----------
    config : InversionConfig
    """
    others = [
        f"{equivalent_anchor_weight(config.anchor_weight, config.reduction, reduction):.4g} under {reduction}"
        for reduction in REDUCTIONS
        if reduction != config.reduction
    ]
    logger.info("anchor_weight %g under %s equals %s.", config.anchor_weight, config.reduction, " and ".join(others))


def _dictionary(clip: CLIP, config: InversionConfig, superclass: str, anchors: Anchors | None) -> Anchors | None:
    """Return the anchors with the superclass among them, or None where there is nothing to be held by."""
    if anchors is None or config.anchor_weight == 0:
        return None
    own = load_anchors(clip, [superclass])
    if config.preset == "official_2024":
        return own
    here = load_anchors(clip, anchors.words[:1]).vectors
    if here.shape != anchors.vectors[:1].shape or not torch.allclose(here, anchors.vectors[:1], atol=1e-3):
        raise UserError(
            "The anchors were loaded with another text encoder; connect the same `clip` to Load Anchors and here."
        )
    return anchors.merged(own)


def _batches(tensors: torch.Tensor | Sequence[torch.Tensor] | None) -> tuple[torch.Tensor, ...] | None:
    if tensors is None:
        return None
    return (tensors,) if isinstance(tensors, torch.Tensor) else tuple(tensors)
