"""Rows and means of an evaluation by hand, and one sentence for every bad question."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from compinv_core.basics.errors import UserError
from compinv_core.detectors.detections import Detection
from compinv_core.measures.evaluation import Question, evaluate, summary_text
from compinv_core.training.events import Event

PROMPT = "a cat and a backpack"


@dataclass(frozen=True)
class Brightness:
    """Features that can be told from the outside: mean red and mean green."""

    name: str = "brightness"

    def encode_images(self, images: Tensor) -> Tensor:
        return images.mean((1, 2))[:, :2]

    def encode_text(self, text: str) -> Tensor:
        return torch.tensor([3.0, 4.0])


@dataclass(frozen=True)
class Redness:
    """Finds a cat in every picture, two in red ones, and a backpack in green ones."""

    name: str = "redness"
    labels: tuple[str, ...] = ("cat", "backpack", "dog")
    threshold: float = 0.8

    def detect(self, images: Tensor) -> list[tuple[Detection, ...]]:
        found = []
        for red, green, *_ in images.mean((1, 2)).tolist():
            labels = ["cat"] + ["cat"] * (red > 0.5) + ["backpack"] * (green > 0.5)
            found.append(tuple(Detection(label, 0.9, (0, 0, 1, 1)) for label in labels))
        return found


def plain(*colours: tuple[float, float, float], side: int = 8) -> Tensor:
    return torch.tensor(colours)[:, None, None, :].expand(-1, side, side, -1)


RED, GREEN, GRAY = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.3, 0.4, 0.0)


def test_rows_and_means_by_hand() -> None:
    question = Question([plain(RED), plain(GREEN, side=4)], PROMPT, ("cat", "backpack"))
    events: list[Event] = []
    report = evaluate(
        [plain(RED, GREEN), plain(GRAY, side=16)],
        question,
        Brightness(),
        [Brightness("other")],
        Redness(),
        events.append,
    )
    assert [row["image"] for row in report.rows] == [0, 1, 2]
    assert [row["text_cosine"] for row in report.rows] == pytest.approx([0.6, 0.8, 1.0])
    assert [row["text_alignment"] for row in report.rows] == pytest.approx([1.5, 2.0, 2.5])
    assert [row["image_alignment"] for row in report.rows] == pytest.approx([0.5, 0.5, 0.7])
    assert [row["image_alignment (other)"] for row in report.rows] == [row["image_alignment"] for row in report.rows]
    assert [row["counts"] for row in report.rows] == [
        {"cat": 2, "backpack": 0}, {"cat": 1, "backpack": 1}, {"cat": 1, "backpack": 0}
    ]  # fmt: skip
    assert [row["duplicates"] for row in report.rows] == [1, 0, 0]
    summary = report.summary
    assert summary["found"] == pytest.approx({"cat": 1.0, "backpack": 1 / 3})
    assert summary["coi_likelihood"] == pytest.approx(2 / 3, abs=1e-6)
    assert summary["all_there"] == summary["duplicates"] == pytest.approx(1 / 3, abs=1e-6)
    assert summary["text_alignment"] == pytest.approx(2.0) and summary["image_alignment"] == pytest.approx(
        1.7 / 3, abs=1e-6
    )
    assert report.models == {"clip": "brightness", "image model 1": "other", "detector": "redness"}
    assert report.prompts == (PROMPT,) and report.settings["references"] == 2
    assert (events[0].step, events[-1].step, events[-1].total) == (0, 3, 3)
    text = summary_text(report)
    assert "likelihood of the concepts: 0.667" in text and "backpack: 0.33" in text and text.endswith("redness")


def test_without_a_detector_there_is_likeness_alone() -> None:
    report = evaluate([plain(RED)], Question([plain(RED)], "a cat", ()), Brightness())
    assert set(report.rows[0]) == {"image", "text_alignment", "text_cosine", "image_alignment"}
    assert report.summary["image_alignment"] == 1 and "coi_likelihood" not in report.summary


def test_a_fourth_channel_does_not_count() -> None:
    with_alpha = torch.cat([plain(RED), torch.zeros(1, 8, 8, 1)], -1)
    question = Question([with_alpha], PROMPT, ())
    assert evaluate([with_alpha], question, Brightness()).rows == evaluate([plain(RED)], question, Brightness()).rows


@pytest.mark.parametrize("prompt", ["A cat, and two backpacks.", "(backpack:1.2) with a cat", "the cat's backpack"])
def test_concepts_are_found_in_the_prompt_however_they_are_written(prompt: str) -> None:
    assert Question([plain(RED)], prompt, ("cat", "a backpack")).concepts == ("cat", "a backpack")


@pytest.mark.parametrize(
    ("references", "prompt", "concepts", "words"),
    [
        ([], PROMPT, (), "`references` has no picture"),
        ([torch.zeros(0, 8, 8, 3)], PROMPT, (), "`references` has no picture"),
        ([plain(RED)], " ", (), "`prompt` is empty"),
        ([plain(RED)], "embedding:my-cat cat", ("cat",), "write the class word in its place"),
        ([plain(RED)], "a cat and a boat", ("backpack",), 'does not name "backpack"'),
        ([plain(RED)], "a backpacker", ("backpack",), 'does not name "backpack"'),
    ],
)
def test_bad_questions_get_a_sentence(references: list, prompt: str, concepts: tuple, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Question(references, prompt, concepts)


def test_bad_combinations_get_a_sentence() -> None:
    question = Question([plain(RED)], PROMPT, ())
    with pytest.raises(UserError, match="`images` has no picture"):
        evaluate([], question, Brightness())
    with pytest.raises(UserError, match="has a detector and no `concepts`"):
        evaluate([plain(RED)], question, Brightness(), (), Redness())
    unknown = Question([plain(RED)], "a cat and a boat", ("cat", "boat"))
    with pytest.raises(UserError, match='does not find "boat", only cat, backpack, dog'):
        evaluate([plain(RED)], unknown, Brightness(), (), Redness())
