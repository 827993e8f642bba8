"""From phrases to predicted boxes: nouns that the predictor knows, and their token features in the text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ... import __version__, logger
from ...basics.errors import UserError, quoted, remark
from ...boxes.geometry import side_by_side
from ...boxes.layout import Layout
from ...layouts.dataset import LayoutDataset, Pair
from ...layouts.predictor import AnyPredictor, LayoutPredictor, SideBySide, nearest_noun, predict_boxes, require_width
from ...layouts.training import LayoutTrainingConfig, LayoutTrainingResult, train_layout
from ...semantic.anchors import Anchors
from ...training.events import Sink, reported
from ...words.nouns import match_labels
from ...words.phrases import check_phrases, spoken
from ..family import Family
from ..fingerprints import is_text_encoder, text_encoder_fingerprint
from ..progress import host_listener, stop_if_asked
from ..text.encoder import load_anchors, token_embeddings
from ..text.reading import PromptReading, read_prompt
from ..text.spans import find_spans, read_phrase

if TYPE_CHECKING:
    from comfy.sd import CLIP

PREDICT_NODE = "Predict Layout"
TRAIN_NODE = "Train Layout Predictor"


def pair_features(clip: CLIP, nouns: Pair, features: str, template: str, node_name: str = TRAIN_NODE) -> torch.Tensor:
    """Return the token features of two nouns seen as a pair.

    Refined features are means over a noun's tokens in the encoded sentence, averaged over the sentences "X and Y" and
    "Y and X", so that they do not depend on the order. Raw ones are means of input embeddings.

    Parameters
    ----------
    nouns : tuple of (str, str)
        Different.
    features : {"refined", "raw"}
    template : str
        The sentence, with two ``{}``.
    node_name : str
        Opens the sentence when a noun is not found in its own sentence.

    Returns
    -------
    Tensor (2, D), float32, CPU
        A normal tensor; for the swapped pair the same rows, swapped.
    """
    if features == "raw":
        return _raw(clip, nouns)
    one = _refined(clip, nouns, template, node_name)
    other = _refined(clip, (nouns[1], nouns[0]), template, node_name)
    return (one + other.flip(0)) / 2


def train_predictor(
    clip: CLIP,
    dataset: LayoutDataset,
    config: LayoutTrainingConfig,
    name: str = "",
    sink: Sink | None = None,
) -> tuple[LayoutPredictor, LayoutTrainingResult]:
    """Train a predictor on a data set.

    Parameters
    ----------
    clip : CLIP
        The text encoder of the model that painted the data set.
    name : str, default ""
        Of the predictor; empty takes the data set's.
    sink : Sink, optional
        Hears of every epoch; by default the host's progress bar.

    Returns
    -------
    tuple of (LayoutPredictor, LayoutTrainingResult)

    Raises
    ------
    UserError
        When the data set has too few pictures, or was painted with another text encoder.
    """
    Family.of(TRAIN_NODE, clip=clip)
    if not dataset.annotations:
        raise UserError(
            f"The data set {dataset.folder.name!r} has no picture in which both nouns were found ({dataset.pictures} "
            "were painted); lower the detector's threshold, or collect more in Collect Layouts."
        )
    if not is_text_encoder(clip, dataset.text_encoder):
        raise UserError(
            f"The data set {dataset.folder.name!r} was painted with another text encoder; connect `clip` to the "
            "checkpoint that Collect Layouts used."
        )
    result = train_layout(
        dataset.annotations, _all_features(clip, dataset, config.features), config, sink or host_listener()
    )
    score = result.scores["predictor"]
    metadata = {
        "detector": dataset.detector,
        "data_set": dataset.folder.name,
        "data_set_pictures": str(len(dataset.annotations)),
        "data_set_incomplete": str(dataset.incomplete),
        "held_out_pairs": str(len(result.held_out_pairs)),
        "held_out_iou": f"{score.iou:.4f}",
        "held_out_iou_either_side": f"{score.iou_either_side:.4f}",
        "epochs": str(config.epochs),
        "learning_rate": str(config.learning_rate),
        "seed": str(config.seed),
        "compinv_version": __version__,
        "torch_version": torch.__version__,
    }
    known = {noun for row in dataset.annotations for noun in row.nouns}
    predictor = LayoutPredictor(
        name or dataset.folder.name,
        result.network,
        tuple(noun for noun in dataset.vocabulary if noun in known),
        config.features,
        dataset.template,
        text_encoder_fingerprint(clip),
        metadata,
    )
    return predictor, result


def predict_layout(
    predictor: AnyPredictor, clip: CLIP, phrases: Sequence[str], width: int, height: int
) -> tuple[Layout, dict[str, str]]:
    """Predict a box for each phrase.

    Parameters
    ----------
    phrases : sequence of str
        At least two, all different; ``embedding:NAME`` is a learned word.
    width, height : int
        Size of the picture in pixels.

    Returns
    -------
    nouns : dict of str to str
        The noun of the predictor's vocabulary that each phrase was taken for; empty for `SideBySide`.

    Raises
    ------
    UserError
        When there are fewer than two phrases or one is repeated, an embedding is missing, or the predictor belongs to a
        text encoder of another width.
    """
    Family.of(PREDICT_NODE, clip=clip)
    check_phrases(phrases)
    if len(phrases) < 2:
        given = f'only the phrase "{phrases[0]}"' if phrases else "no phrase"
        raise UserError(
            f"{PREDICT_NODE}: there is {given}, but a layout is about two or more things; write one phrase per line "
            "in `phrases`, or draw the box with Create Bounding Boxes."
        )
    readings = [read_phrase(clip, phrase, PREDICT_NODE) for phrase in phrases]
    if isinstance(predictor, SideBySide):
        return Layout(tuple(phrases), side_by_side(len(phrases)), width, height), {}
    require_width(predictor, token_embeddings(clip, [0]).shape[1], PREDICT_NODE)
    if not is_text_encoder(clip, predictor.text_encoder):
        remark(
            f"{PREDICT_NODE}: the predictor {predictor.name} was trained with another text encoder; boxes may be worse."
        )
    vocabulary = load_anchors(clip, predictor.vocabulary)
    nouns = [phrase_noun(clip, reading, vocabulary) for reading in readings]

    def features(i: int, j: int) -> tuple[torch.Tensor, torch.Tensor]:
        stop_if_asked(i)
        first, second = _pair_of(clip, predictor, nouns[i], nouns[j])
        return first, second

    with torch.inference_mode(False):
        boxes = predict_boxes(predictor.network, len(phrases), features)
    return Layout(tuple(phrases), boxes, width, height), dict(zip(phrases, nouns, strict=True))


def phrase_noun(clip: CLIP, phrase: PromptReading, vocabulary: Anchors) -> str:
    """Return the noun of a vocabulary that stands for a phrase.

    The noun that the phrase's words end with ("cat" for "embedding:my-cat cat" and "a red cat"), else the first noun
    among its words, else the one nearest in embedding space: to the words beside a learned word, which are its class,
    or to the learned word itself.
    """
    words = spoken(phrase.words).split()
    for start in range(len(words)):
        if found := _known(words[start:], vocabulary):
            return found
    for start in range(len(words)):
        for stop in range(len(words) - 1, start, -1):
            if found := _known(words[start:stop], vocabulary):
                return found
    # The last word of ordinary text is what it is about.
    vector = _mean_vector(clip, read_prompt(clip, words[-1], PREDICT_NODE) if words else phrase)
    noun, cosine = nearest_noun(vector, vocabulary.words, vocabulary.vectors)
    logger.info('%s: %s is taken for "%s" (cosine %.2f).', PREDICT_NODE, quoted(phrase.text), noun, cosine)
    return noun


def _known(words: Sequence[str], vocabulary: Anchors) -> str | None:
    """Return the vocabulary's noun that these words are, whatever their case, number and article."""
    text = " ".join(words)
    matched = match_labels([text], vocabulary.words).get(text)
    # A compound that only shares its last word with the noun ("hot dog") is found by its own last words later.
    return matched if matched is not None and len(matched.split()) >= len(_without_article(words)) else None


def _without_article(words: Sequence[str]) -> Sequence[str]:
    return words[1:] if len(words) > 1 and words[0].lower() in ("a", "an", "the", "one") else words


def _all_features(clip: CLIP, dataset: LayoutDataset, kind: str) -> dict[Pair, torch.Tensor]:
    """Features of every pair of a data set in both orders; many pairs take minutes on a CPU."""
    found: dict[Pair, torch.Tensor] = {}
    pairs = {frozenset(row.nouns): row.nouns for row in dataset.annotations}.values()
    for first, second in reported("encoding pairs", pairs, host_listener()):
        found[first, second] = pair_features(clip, (first, second), kind, dataset.template)
        found[second, first] = found[first, second].flip(0)
    return found


def _pair_of(clip: CLIP, predictor: LayoutPredictor, first: str, second: str) -> torch.Tensor:
    """Return features (2, D) of two nouns, which may be the same."""
    if first != second:
        return pair_features(clip, (first, second), predictor.features, predictor.template, PREDICT_NODE)
    # A sentence cannot tell two equal nouns apart, so both take their place beside another noun of the vocabulary.
    other = next(noun for noun in predictor.vocabulary if noun != first)
    row = _pair_of(clip, predictor, first, other)[0]
    return torch.stack([row, row])


def _mean_vector(clip: CLIP, text: PromptReading) -> torch.Tensor:
    """Return the mean input embedding of a text's tokens, learned vectors among them, (D,)."""
    means = []
    with torch.inference_mode(False):
        for which, reading in enumerate(text.encoders):
            if not reading.tokens:
                raise UserError(f"{PREDICT_NODE}: the phrase {quoted(text.text)} has no word; write one in `phrases`.")
            vectors = [
                token.detach().float().cpu().clone()
                if isinstance(token, torch.Tensor)
                else token_embeddings(clip, [token], which)[0]
                for token in reading.tokens
            ]
            means.append(torch.stack(vectors).mean(0))
        return torch.cat(means)


def _raw(clip: CLIP, nouns: Pair) -> torch.Tensor:
    return torch.stack([load_anchors(clip, [noun]).vectors[0] for noun in nouns])


def _refined(clip: CLIP, nouns: Pair, template: str, node_name: str) -> torch.Tensor:
    """Return the means over each noun's tokens in the encoded sentence, (2, D)."""
    prompt = template.format(*nouns)
    spans = find_spans(clip, prompt, nouns, node_name)
    with torch.inference_mode():
        encoded: Any = clip.encode_from_tokens(clip.tokenize(prompt))
    with torch.inference_mode(False):
        rows = encoded[0].float().cpu().clone()
        return torch.stack([rows[list(span.tokens)].mean(0) for span in spans])
