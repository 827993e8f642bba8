"""Pictures measured against photos and prompt, the way of the paper's tables: one row per picture, and their means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from ..basics.errors import UserError, listed, quoted
from ..basics.report import Report
from ..detectors.detections import Detector, require_labels
from ..training.events import Sink, Work, nobody
from ..words.nouns import same_noun
from ..words.phrases import spoken
from .composition import composition
from .encoders import ImageEncoder, TextImageEncoder
from .likeness import cosines, image_alignment, text_alignment

NODE_NAME = "Evaluate Images"
_CLIP = "image_alignment"
_PLACES = 6
# Small enough that the stop button answers soon.
_BATCH = 8


@dataclass(frozen=True, eq=False)
class Question:
    """What pictures are measured against.

    Parameters
    ----------
    references : sequence of Tensor (M, H, W, 3)
        Photos of the own thing, in [0, 1]; sizes may differ between them.
    prompt : str
        With the class word in the place of the learned word.
    concepts : tuple of str
        Nouns of the prompt that a detector should find; may be empty.

    Raises
    ------
    UserError
        When there is no photo, the prompt holds an embedding, or it does not name a concept.
    """

    references: Sequence[Tensor]
    prompt: str
    concepts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not sum(len(photos) for photos in self.references):
            raise UserError(
                f"{NODE_NAME}: `references` has no picture; connect the photos that the word was learned from."
            )
        if not spoken(self.prompt):
            raise UserError(f"{NODE_NAME}: `prompt` is empty; write the prompt with the class word in it.")
        if "embedding:" in self.prompt:
            raise UserError(
                f"{NODE_NAME}: the prompt holds a learned word, which no network that judges pictures knows; write the "
                "class word in its place, such as: a cat and a backpack."
            )
        for concept in self.concepts:
            if not _names(self.prompt, concept):
                raise UserError(
                    f"{NODE_NAME}: the prompt does not name {quoted(concept)}; write it there, or take it out of "
                    "`concepts`."
                )


def evaluate(
    images: Sequence[Tensor],
    question: Question,
    clip: TextImageEncoder,
    looks: Sequence[ImageEncoder] = (),
    detector: Detector | None = None,
    sink: Sink = nobody,
) -> Report:
    """Measure pictures.

    Parameters
    ----------
    images : sequence of Tensor (N, H, W, 3)
        In [0, 1]; sizes may differ between them.
    looks : sequence of ImageEncoder
        Further networks that compare pictures with photos, such as a DINO.
    detector : Detector, optional
        Says which of the concepts are there; without one the report has nothing on that.

    Returns
    -------
    Report
        Rows with ``text_alignment``, ``text_cosine``, ``image_alignment``, one alignment for each of `looks`, and with
        a detector ``scores`` and ``counts`` of the concepts, ``all_there`` and ``duplicates``. In the summary
        ``coi_likelihood`` is the share of pictures in which a concept is found, mean over the concepts.

    Raises
    ------
    UserError
        When there is no picture, or the detector knows none of the concepts.
    """
    batches = [batch for batch in images if len(batch)]
    if not batches:
        raise UserError(f"{NODE_NAME}: `images` has no picture; connect the pictures that are to be measured.")
    labels = _labels(question.concepts, detector) if detector else {}
    encoders = {_CLIP: clip, **{f"image_alignment ({look.name})": look for look in looks}}
    text = clip.encode_text(question.prompt)
    references = {key: _encoded(encoder, question.references) for key, encoder in encoders.items()}
    work = Work("measuring pictures", sum(map(len, batches)), sink)
    rows: list[dict[str, Any]] = []
    for pictures in (part for batch in batches for part in batch[..., :3].split(_BATCH)):
        measured = _likeness(pictures, encoders, references, text)
        if detector:
            found = _findings(pictures, detector, labels)
            measured = [row | more for row, more in zip(measured, found, strict=True)]
        rows += [{"image": len(rows) + number} | row for number, row in enumerate(measured)]
        work.report(len(rows))
    models = {"clip": clip.name, **{f"image model {n}": look.name for n, look in enumerate(looks, 1)}}
    if detector:
        models["detector"] = detector.name
    settings: dict[str, Any] = {"concepts": question.concepts, "references": sum(map(len, question.references))}
    if detector:
        settings |= {"threshold": detector.threshold, "labels": labels}
    return Report("evaluation", models, settings, (question.prompt,), (), _summary(rows), rows)


def summary_text(report: Report) -> str:
    """The summary for people, a line for each number."""
    said = {
        "text_alignment": "text alignment (2.5 · cosine with the prompt)",
        "text_cosine": "cosine with the prompt",
        "image_alignment": "image alignment (cosine with the photos)",
        "coi_likelihood": "likelihood of the concepts",
        "all_there": "pictures with all concepts",
        "duplicates": "pictures with one of them twice",
    }
    lines = [f"{len(report.rows)} pictures, {report.settings['references']} photos: “{report.prompts[0]}”"]
    for key, value in report.summary.items():
        if isinstance(value, Mapping):
            lines += [f"  {name}: {share:.2f}" for name, share in value.items()]
        else:
            lines.append(f"{said.get(key, key)}: {value:.3f}")
    return "\n".join([*lines, "by " + ", ".join(report.models.values())])


def _labels(concepts: Sequence[str], detector: Detector) -> dict[str, str]:
    if not concepts:
        raise UserError(
            f"{NODE_NAME} has a detector and no `concepts`; write the nouns that it should find, one per line."
        )
    labels = require_labels(concepts, detector)
    unknown = [concept for concept in concepts if concept not in labels]
    if unknown:
        raise UserError(
            f"{NODE_NAME}: the detector {detector.name} does not find {listed(unknown, quotes=True)}, only "
            f"{listed(detector.labels)}; take another word, or another detector."
        )
    return labels


def _encoded(encoder: ImageEncoder, images: Sequence[Tensor]) -> Tensor:
    return torch.cat([encoder.encode_images(batch[..., :3]) for batch in images if len(batch)])


def _likeness(
    pictures: Tensor, encoders: Mapping[str, ImageEncoder], references: Mapping[str, Tensor], text: Tensor
) -> list[dict[str, float]]:
    features = {key: encoder.encode_images(pictures) for key, encoder in encoders.items()}
    cosine = cosines(features[_CLIP], text[None])[:, 0]
    columns = {"text_alignment": text_alignment(cosine), "text_cosine": cosine}
    columns |= {key: image_alignment(each, references[key]) for key, each in features.items()}
    values = {key: column.tolist() for key, column in columns.items()}
    return [{key: round(column[i], _PLACES) for key, column in values.items()} for i in range(len(pictures))]


def _findings(pictures: Tensor, detector: Detector, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    rows = []
    for detections in detector.detect(pictures):
        found = composition(detections, labels)
        scores = {concept: round(score, _PLACES) for concept, score in found.scores.items()}
        more = {"all_there": found.all_there, "duplicates": found.duplicates}
        rows.append({"counts": found.counts, "scores": scores, **more})
    return rows


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    means = {key: mean(row[key] for row in rows) for key, value in rows[0].items() if isinstance(value, float)}
    if "counts" in rows[0]:
        found = {concept: mean(row["counts"][concept] > 0 for row in rows) for concept in rows[0]["counts"]}
        means |= {"coi_likelihood": mean(found.values()), "found": found}
        means |= {"all_there": mean(row["all_there"] for row in rows)}
        means |= {"duplicates": mean(row["duplicates"] > 0 for row in rows)}
    return {key: value if isinstance(value, dict) else round(float(value), _PLACES) for key, value in means.items()}


def _names(prompt: str, concept: str) -> bool:
    """Whether a prompt has the words of a concept, in whatever number or punctuation."""
    words, wanted = spoken(prompt).split(), len(spoken(concept).split())
    return wanted > 0 and any(
        same_noun(" ".join(words[i : i + length]), concept)
        for length in (wanted, wanted - 1, wanted + 1)
        if length > 0
        for i in range(len(words) - length + 1)
    )
