"""Lists of nouns."""

from __future__ import annotations

from pathlib import Path

import pytest

from compinv_core.errors import UserError
from compinv_core.words.nouns import coco80, merge_words, read_words, split_words


def test_coco_has_eighty_nouns() -> None:
    words = coco80()
    assert len(words) == len(set(words)) == 80
    assert {"person", "teddy bear", "toothbrush"} <= set(words)


def test_comments_blank_lines_and_duplicates_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("\ufeff# pets\ncat  # the usual\n\n  teddy   bear\nCat\ndog\n", encoding="utf-8")
    assert read_words(path) == ("cat", "teddy bear", "dog")


def test_words_are_split_at_commas_and_lines() -> None:
    assert split_words(" kitten, tabby cat;dog\n\nbird, kitten ") == ("kitten", "tabby cat", "dog", "bird")
    assert split_words("  ") == ()


def test_merging_keeps_the_first_spelling() -> None:
    assert merge_words(["Cat", "dog"], ["cat", "bird"]) == ("Cat", "dog", "bird")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"# nothing\n", "holds no noun"), (b"\xff\xfe\x00c", "UTF-8"), (b"x" * 1_000_001, "over 1 MB"), (None, "exist")],
)
def test_bad_files_get_a_sentence(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read_words(path)
