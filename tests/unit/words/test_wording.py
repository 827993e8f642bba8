"""A learned word in a prompt, compared with the sentences that it was trained in."""

from __future__ import annotations

import pytest

from compinv_core.words.sentences import TEMPLATES, other_wording

WITH, ALONE = TEMPLATES["object with class"], TEMPLATES["object"]


@pytest.mark.parametrize(
    "prompt",
    [
        "embedding:my-cat cat and a boat",
        "a (embedding:my-cat cat:1.2), a boat",
        "embedding:my-cat black cats on grass",
        "(embedding:my-cat:0.8) cat; embedding:my-cat cat again",
        "a cat and a boat",
    ],
)
def test_trained_before_its_class_noun_and_prompted_so(prompt: str) -> None:
    assert other_wording(prompt, "my-cat", "cat", WITH) == ""


@pytest.mark.parametrize(
    "prompt",
    [
        "embedding:my-cat and a boat",
        "a boat beside embedding:my-cat",
        "embedding:my-cat cat and then embedding:my-cat",
        "embedding:my-cat with a big boat and a cat",
    ],
)
def test_prompted_without_the_class_noun(prompt: str) -> None:
    assert 'write "embedding:my-cat cat"' in other_wording(prompt, "my-cat", "cat", WITH)


def test_trained_alone() -> None:
    assert other_wording("embedding:my-cat and a cat", "my-cat", "cat", ALONE) == ""
    assert 'says little before "cat"' in other_wording("embedding:my-cat cat", "my-cat", "cat", ALONE)


def test_a_noun_of_two_words_and_sentences_of_ones_own() -> None:
    own = ("a toy {} sports ball", "a {}")
    assert other_wording("embedding:x sports ball", "x", "sports ball", own) == ""
    assert other_wording("embedding:x ball", "x", "sports ball", own)


def test_of_an_unknown_training_nothing_is_said() -> None:
    assert other_wording("embedding:my-cat", "my-cat", "cat", ()) == ""
    assert other_wording("embedding:my-cat", "my-cat", "", WITH) == ""
