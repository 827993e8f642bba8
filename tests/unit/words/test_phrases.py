"""Phrases: their list, and what of them counts."""

from __future__ import annotations

import pytest

from compinv_core.words.phrases import is_punctuation, parse_phrases, same_text, same_words, spoken, with_class_nouns


def test_phrases_are_lines() -> None:
    assert parse_phrases("  embedding:my-cat   cat \n\n a ball\n") == ("embedding:my-cat cat", "a ball")
    assert parse_phrases("\n \n") == ()


@pytest.mark.parametrize(
    ("phrase", "words"),
    [
        ("A  Cat", "a cat"),
        ("a cat,", "a cat"),
        ("a cat!?", "a cat"),
        ("¡a cat!", "a cat"),
        ("a cat...", "a cat"),
        ('"a cat"', "a cat"),
        ("„a cat“", "a cat"),
        ("«a cat»", "a cat"),
        ("a ‘cat’", "a cat"),
        ("(a cat)", "a cat"),
        ("(a cat:1.2)", "a cat"),
        ("((a cat:.5) sitting: 2 )", "a cat sitting"),
        ("a (red:1.2) ball", "a red ball"),
        ("(a cat", "a cat"),
        ("a cat:1.2)", "a cat"),
        ("[a cat]", "a cat"),
        ("a cat, sitting", "a cat sitting"),
        ("a cat,sitting", "a cat sitting"),
        ("a cat - sitting", "a cat sitting"),
        ("the cat's toy", "the cat toy"),
        ("the cat’s toy", "the cat toy"),
        ("two cats' toys", "two cats toys"),
        ("a cat\x00", "a cat"),
        ("cafe\u0301", "café"),
        ("a T-shirt", "a t-shirt"),
        ("five o'clock", "five o'clock"),
        ("a monitor/tv", "a monitor/tv"),
        ("embedding:my-cat cat", "my-cat cat"),
        ("(embedding:my-cat:1.3) cat", "my-cat cat"),
        ("embedding:sub/fox fox", "sub/fox fox"),
        (r"embedding:fox\(v2\) fox", "fox(v2) fox"),
        ("crab_(animal)", "crab_(animal)"),
        ("!?", ""),
        ("", ""),
    ],
)
def test_what_of_a_phrase_counts(phrase: str, words: str) -> None:
    assert spoken(phrase) == words and spoken(words) == words
    assert same_words(phrase, words) == bool(words)


def test_a_text_without_a_word_is_the_same_as_itself_only() -> None:
    assert same_text("!!!", " !!!") and not same_words("!!!", "???") and not same_words("", "")


def test_what_is_punctuation() -> None:
    assert all(map(is_punctuation, (",", '"...', "+=", "’", "(", "。")))
    assert not any(map(is_punctuation, ("", "a.", "3", "🐱", " ")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("embedding:my-cat cat and a ball", "cat and a ball"),
        ("a embedding:my-cat and a ball", "a cat and a ball"),
        ("(embedding:my-cat cat:1.2), embedding:my-cat", "(cat:1.2), cat"),
        ("embedding:my-cat cats", "cat cats"),
        ("embedding:my-cat-2 cat", "embedding:my-cat-2 cat"),
        ("embedding:toy and my embedding:toy\n teddy bear", "teddy bear and my teddy bear"),
        ("a dog", "a dog"),
    ],
)
def test_class_nouns_take_the_place_of_learned_words(text: str, expected: str) -> None:
    assert with_class_nouns(text, {"my-cat": "cat", "toy": "teddy bear"}) == expected
