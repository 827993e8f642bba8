"""The sentence for the person: one line, legible, bounded, and still an exception like any other."""

from __future__ import annotations

import copy
import pickle

import pytest

from compinv_core.basics.errors import UserError, listed, quoted


@pytest.mark.parametrize("odd", ["\n", "\r", "\r\n", "\x00", "\u2028", "\x1b[31m", "\ud800", "\u200e"])
def test_a_sentence_is_one_line_of_legible_letters(odd: str) -> None:
    sentence = str(UserError(f"The label a{odd}b has no box; draw one."))
    assert sentence.isprintable()
    assert sentence.encode("utf-8")
    assert sentence.endswith("draw one.")


def test_letters_of_other_scripts_stay_as_they_are() -> None:
    assert str(UserError("café, кот and 猫 are nouns.")) == "café, кот and 猫 are nouns."


def test_a_long_sentence_keeps_its_beginning_and_its_cure() -> None:
    sentence = str(UserError(f"The phrase {'x' * 10_000} is not there; write it."))
    assert len(sentence) <= 700
    assert sentence.startswith("The phrase x")
    assert sentence.endswith("; write it.")


def test_the_hosts_panel_shows_the_name_of_the_error_without_a_module() -> None:
    assert UserError.__module__ == "builtins"
    assert UserError.__qualname__ == "UserError"


@pytest.mark.parametrize("again", [copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_it_can_be_copied_and_pickled(again) -> None:
    copied = again(UserError("One thing is wrong; change it."))
    assert type(copied) is UserError
    assert str(copied) == "One thing is wrong; change it."


def test_names_are_quoted_escaped_and_cut() -> None:
    assert quoted("a\nb") == '"a\\nb"'
    assert len(quoted("x" * 500)) == 82
    assert quoted(5) == '"5"'


def test_long_lists_are_cut_with_a_count() -> None:
    assert listed(["cat", "dog"]) == "cat, dog"
    assert listed(["cat", "a\nb"], quotes=True) == '"cat", "a\\nb"'
    assert listed(range(11)) == "0, 1, 2, 3, 4, 5, 6, 7 and 3 more"
