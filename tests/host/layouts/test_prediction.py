"""Training and using the layout predictor on the real text encoder."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from compinv_core.basics.errors import UserError
from compinv_core.boxes.geometry import largest_pairwise_iou
from compinv_core.boxes.layout import Box
from compinv_core.layouts.dataset import LayoutDataset, PairLayout
from compinv_core.layouts.predictor import LayoutPredictor, PairNetwork, SideBySide
from compinv_core.layouts.training import LayoutTrainingConfig
from support import host, layouts

HEIGHT = {"cat": 0.4, "dog": 0.5, "boat": 0.7, "tree": 0.3}
TEMPLATE = "a photo of a {} and a {}"


@pytest.fixture(scope="module")
def clip() -> Any:
    return host.load("tiny")[1]


@pytest.fixture(scope="module")
def dataset(clip: Any) -> LayoutDataset:
    """Every pair of four nouns in both orders, the first on the left, each at its height."""
    from compinv_core.host.fingerprints import text_encoder_fingerprint

    def box(noun: str, left: float) -> Box:
        return (left, HEIGHT[noun], left + 0.3, HEIGHT[noun] + 0.2)

    rows = [
        PairLayout((one, other), (box(one, 0.1), box(other, 0.6)))
        for one, other in itertools.permutations(layouts.NOUNS, 2)
    ]
    pairs = tuple(itertools.combinations(layouts.NOUNS, 2))
    return LayoutDataset(
        Path("drawn"), text_encoder_fingerprint(clip), "by hand", TEMPLATE, layouts.NOUNS, pairs, tuple(rows), 14
    )


@pytest.fixture(scope="module")
def predictor(clip: Any, dataset: LayoutDataset) -> LayoutPredictor:
    from compinv_core.host.layouts.prediction import train_predictor

    with torch.inference_mode():
        trained, _ = train_predictor(clip, dataset, LayoutTrainingConfig(epochs=8, learning_rate=0.01))
    return trained


def predict(predictor: Any, clip: Any, *phrases: str) -> Any:
    from compinv_core.host.layouts.prediction import predict_layout

    with torch.inference_mode():
        return predict_layout(predictor, clip, phrases, 512, 256)


def write_embedding(name: str, vectors: torch.Tensor) -> None:
    save_file({f"<{name}>": vectors.contiguous()}, host.start() / "models" / "embeddings" / f"{name}.safetensors")


def test_features_do_not_depend_on_the_order(clip: Any) -> None:
    from compinv_core.host.layouts.prediction import pair_features

    for kind in ("refined", "raw"):
        one = pair_features(clip, ("cat", "teddy bear"), kind, TEMPLATE)
        other = pair_features(clip, ("teddy bear", "cat"), kind, TEMPLATE)
        assert one.shape == (2, 768) and not one.is_inference()
        torch.testing.assert_close(one, other.flip(0), rtol=0, atol=0)
    # Refined features know the neighbour, raw ones do not.
    refined, raw = (
        [pair_features(clip, ("cat", noun), kind, TEMPLATE)[0] for noun in ("boat", "dog")]
        for kind in ("refined", "raw")
    )
    assert not torch.equal(*refined) and torch.equal(*raw)


def test_refined_features_are_means_over_the_nouns_tokens(clip: Any) -> None:
    from compinv_core.host.layouts.prediction import pair_features

    # a photo of a [teddy bear] and a [cat]: tokens 5 and 6, then 9; swapped: 5, then 8 and 9.
    rows = [
        clip.encode_from_tokens(clip.tokenize(text))[0].float()
        for text in ("a photo of a teddy bear and a cat", "a photo of a cat and a teddy bear")
    ]
    expected = torch.stack([(rows[0][5:7].mean(0) + rows[1][8:10].mean(0)) / 2, (rows[0][9] + rows[1][5]) / 2])
    torch.testing.assert_close(pair_features(clip, ("teddy bear", "cat"), "refined", TEMPLATE), expected)


def test_predictor_remembers_where_it_comes_from(predictor: LayoutPredictor, dataset: LayoutDataset) -> None:
    assert predictor.vocabulary == layouts.NOUNS and predictor.width == 768
    assert predictor.text_encoder == dataset.text_encoder and predictor.template == TEMPLATE
    assert predictor.metadata["detector"] == "by hand" and predictor.metadata["data_set_pictures"] == "12"
    assert predictor.metadata["data_set_incomplete"] == "2" and 0 <= float(predictor.metadata["held_out_iou"]) <= 1


def test_swapped_phrases_get_swapped_boxes(predictor: LayoutPredictor, clip: Any) -> None:
    layout, _ = predict(predictor, clip, "a cat", "a boat")
    swapped, _ = predict(predictor, clip, "a boat", "a cat")
    assert layout.boxes == swapped.boxes[::-1]
    assert (layout.width, layout.height) == (512, 256)


def test_three_concepts_get_three_boxes_apart(predictor: LayoutPredictor, clip: Any) -> None:
    layout, _ = predict(predictor, clip, "a cat", "a boat", "a tree")
    assert len(layout.boxes) == 3 and largest_pairwise_iou(layout.boxes) < 0.3


def test_phrases_are_taken_for_nouns(predictor: LayoutPredictor, clip: Any, caplog: pytest.LogCaptureFixture) -> None:
    from compinv_core.host.text.encoder import load_anchors

    boat = load_anchors(clip, ["boat"]).vectors
    noise = torch.randn(1, 768, generator=torch.Generator().manual_seed(0)) * boat.norm() / 768**0.5
    write_embedding("layout-boat", torch.cat([boat + 0.2 * noise, boat - 0.2 * noise]))
    with caplog.at_level(logging.INFO, "compinv"):
        _, nouns = predict(
            predictor, clip, "embedding:layout-boat", "embedding:layout-boat cat", "two red Trees", "a dog with a hat",
            "a cat near a boat outside",
        )  # fmt: skip
    assert list(nouns.values()) == ["boat", "cat", "tree", "dog", "cat"]
    # Only the learned word alone had to be looked for in embedding space.
    assert [record.message for record in caplog.records if "is taken for" in record.message] == [
        'Predict Layout: "embedding:layout-boat" is taken for "boat" (cosine 1.00).'
    ]


def test_unknown_words_take_the_nearest_noun(predictor: LayoutPredictor, clip: Any) -> None:
    from compinv_core.host.text.encoder import load_anchors

    known = load_anchors(clip, predictor.vocabulary)
    kitten = load_anchors(clip, ["kitten"]).vectors
    nearest = predictor.vocabulary[int(torch.cosine_similarity(known.vectors, kitten).argmax())]
    other = next(noun for noun in layouts.NOUNS if noun != nearest)
    for phrase in ("a sleepy kitten", "embedding:layout-boat kitten"):
        _, nouns = predict(predictor, clip, phrase, other)
        assert nouns == {phrase: nearest, other: other}


@pytest.mark.parametrize(
    "phrase",
    [
        "a cat,", "a cat.", '"a cat"', "“a cat”", "(a cat:1.2)", "((a cat))", "a (big:1.3) cat!", "a cat, sitting",
        "a cat’s", "the cat's toy", "embedding:layout-boat cat,", "(embedding:layout-boat:1.2) cat", "cats; sleeping",
    ],
)  # fmt: skip
def test_punctuation_beside_a_noun_does_not_count(predictor: LayoutPredictor, clip: Any, phrase: str) -> None:
    write_embedding("layout-boat", torch.ones(2, 768))
    layout, nouns = predict(predictor, clip, phrase, "a boat")
    assert nouns[phrase] == "cat" and layout.boxes == predict(predictor, clip, "a cat", "a boat")[0].boxes


@pytest.mark.parametrize("name", ["layout (old)", "layout,old", "layout:old"])
def test_every_name_of_an_embedding_may_stand_in_a_phrase(predictor: LayoutPredictor, clip: Any, name: str) -> None:
    from compinv_core.host.text.encoder import load_anchors

    name = name.replace(" ", "")
    write_embedding(name, load_anchors(clip, ["boat"]).vectors)
    written = "embedding:" + name.replace("(", r"\(").replace(")", r"\)")
    assert list(predict(predictor, clip, written, f"{written} cat")[1].values()) == ["boat", "cat"]


def test_two_phrases_of_one_noun_get_two_boxes(predictor: LayoutPredictor, clip: Any) -> None:
    layout, nouns = predict(predictor, clip, "a black cat", "a white cat")
    assert set(nouns.values()) == {"cat"}
    assert layout.boxes[0][0] < layout.boxes[1][0]


def test_side_by_side_needs_no_vocabulary(clip: Any) -> None:
    layout, nouns = predict(SideBySide(), clip, "a unicorn", "a cat", "a boat")
    assert nouns == {} and largest_pairwise_iou(layout.boxes) == 0
    assert [box[0] for box in layout.boxes] == sorted(box[0] for box in layout.boxes)


@pytest.mark.parametrize(
    ("phrases", "part"),
    [
        ((), "no phrase"),
        (("a cat",), 'only the phrase "a cat"'),
        (("a cat", "A  cat"), "given twice"),
        (("a cat", "embedding:nowhere boat"), 'needs the embedding "nowhere"'),
        (("a cat", "embedding:nowhere:1.2 boat"), 'needs the embedding "nowhere:1.2".*write a weight in brackets'),
        (("a cat", "embedding:too-wide"), 'needs the embedding "too-wide", but it is 1024 wide'),
        (("a cat", "embedding:not-finite boat"), 'needs the embedding "not-finite", but its file holds NaN'),
    ],
)
@pytest.mark.parametrize("kind", ["trained", "side by side"])
def test_bad_phrases_get_a_sentence(
    predictor: LayoutPredictor, clip: Any, kind: str, phrases: tuple[str, ...], part: str
) -> None:
    write_embedding("too-wide", torch.ones(1, 1024))
    write_embedding("not-finite", torch.full((1, 768), torch.nan))
    with pytest.raises(UserError, match=part) as caught:
        predict(predictor if kind == "trained" else SideBySide(), clip, *phrases)
    assert str(caught.value).endswith(".") and ". " not in str(caught.value)


def test_another_width_and_another_text_encoder(predictor: LayoutPredictor, clip: Any, caplog: Any) -> None:
    narrow = replace(predictor, network=PairNetwork(512).eval())
    with pytest.raises(UserError, match="512 wide.*768 wide; choose a predictor") as caught:
        predict(narrow, clip, "a cat", "a boat")
    assert ". " not in str(caught.value)
    with caplog.at_level(logging.WARNING, "compinv"):
        predict(replace(predictor, text_encoder="other"), clip, "a cat", "a boat")
    assert "another text encoder" in caplog.text


def test_bad_data_sets_get_a_sentence(clip: Any, dataset: LayoutDataset) -> None:
    from compinv_core.host.layouts.prediction import train_predictor

    for changes, part in (
        ({"annotations": ()}, "no picture in which both .*; lower .* or collect more in Collect Layouts"),
        ({"text_encoder": "other"}, "another text encoder; connect `clip` to the checkpoint"),
        ({"annotations": dataset.annotations[:1]}, "at least two pairs.*; raise `pairs`"),
    ):
        with pytest.raises(UserError, match=part) as caught:
            train_predictor(clip, replace(dataset, **changes), LayoutTrainingConfig())
        assert str(caught.value).endswith(".") and ". " not in str(caught.value)


def test_encoding_of_pairs_shows_progress_and_stops(clip: Any, dataset: LayoutDataset) -> None:
    import comfy.model_management
    import comfy.utils

    from compinv_core.host.layouts.prediction import train_predictor

    shown: list[tuple[int, int]] = []

    def stop_after_two(done: int, total: int, *preview: Any, **more: Any) -> None:
        shown.append((done, total))
        if done == 2:
            comfy.model_management.interrupt_current_processing()

    before = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(stop_after_two)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            train_predictor(clip, dataset, LayoutTrainingConfig())
    finally:
        comfy.utils.set_progress_bar_global_hook(before)
    assert shown == [(0, 6), (1, 6), (2, 6)]


def test_a_sentence_during_prediction_names_that_node(predictor: LayoutPredictor, clip: Any) -> None:
    with pytest.raises(UserError, match="^Predict Layout: "):
        predict(replace(predictor, template="{}{}"), clip, "a cat", "a boat")
