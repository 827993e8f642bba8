"""What the bits of a training's result depend on, so that a saved run is only continued by its like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ...basics.digests import digest
from ...basics.settings import fingerprint
from ...learning.concept import Concept
from ...learning.settings import InversionConfig
from ...semantic.anchors import Anchors
from .class_pictures import ClassPictures, first_class_prompt


def run_fingerprint(
    config: InversionConfig,
    concepts: Sequence[Concept],
    dictionaries: Sequence[Anchors | None],
    nouns: Sequence[Sequence[str]],
    class_sources: Sequence[torch.Tensor | ClassPictures],
    models: Mapping[str, str],
) -> dict[str, str]:
    """Return a fingerprint of everything that the result depends on, part by part.

    Parameters
    ----------
    concepts : sequence of Concept
        Checked.
    dictionaries, nouns, class_sources
        For each concept its anchors, the nouns that are to stay as they are beside it, and its class pictures.
    models : mapping of str to str
        Fingerprints of the models.
    """
    prints = {**fingerprint(config), **fingerprint(concepts[0], without=("name",)), **models}
    if config.is_official:
        # Earlier versions knew only of the anchor, the mask and the vectors.
        prints["what official_2024 repeats"] = "one vector, weight decay, posterior samples, mirrored photos"
    if config.method.trains_model:
        prints["method"] = config.method.name
        prints["class_prompt"] = repr(first_class_prompt(config, concepts))
    for index, concept in enumerate(concepts):
        which = f" {index + 1}" if index else ""
        if index:
            prints[f"words{which}"] = repr((concept.superclass, concept.init_word, concept.num_vectors))
        prints[f"images{which}"] = digest(*concept.photos)
        if concept.frames:
            prints[f"sizes{which}"] = repr(concept.frames)
        prints[f"mask{which}"] = "none" if concept.masks is None else digest(*concept.masks)
        anchors = dictionaries[index]
        prints[f"anchors{which}"] = "none" if anchors is None else digest(anchors.vectors)
        if anchors is not None:
            # Earlier versions let any anchor in, and scaled the prior loss by 1 - anchor_weight.
            prints["which anchors count"] = repr(config.recoder_settings().least_share)
            if class_sources:
                prints["the weighing of the prior loss"] = "not scaled"
        if nouns[index]:
            prints[f"context{which}"] = repr(nouns[index])
        if class_sources:
            source = class_sources[index]
            made = isinstance(source, ClassPictures)
            prints[f"class images{which}"] = source.description() if made else digest(source)
    return prints
