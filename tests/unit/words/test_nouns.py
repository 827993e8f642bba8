"""Lists of nouns, and labels matched to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from compinv_core.basics.errors import UserError
from compinv_core.words.nouns import coco80, match_labels, merge_words, read_words, same_head, same_noun, split_words

ENCODINGS = ("16", "16-le", "16-be", "32", "32-le", "32-be")


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
    "content",
    [
        "cat, dog, teddy bear",
        "cat;dog;teddy bear;",
        "cat,dog # pets, mine\n# more; of them\nteddy bear",
        "\ufeffcat\r\ndog\r\n\r\nteddy  bear",
        "\ufeffcat\n\ufeffdog\rteddy bear",
        '"cat","dog",\n“teddy bear”',
        "cat\uff0cdog\u3001teddy bear\uff1bcat",
    ],
)
def test_a_list_may_have_several_nouns_in_a_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(content.encode())
    assert read_words(path) == ("cat", "dog", "teddy bear")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"# nothing\n", "holds no noun"),
        (b"\xff\xfe\x00c", "UTF-8"),
        (b"x" * 1_000_001, "over 1 MB"),
        (None, "exist"),
        (b"\xef\xbb\xbf , ;\n", "holds no noun"),
        ("caf\u00e9".encode("latin-1"), "UTF-8"),
        *(("cat\n\u043a\u043e\u0442\n".encode(f"utf-{kind}"), "UTF-8") for kind in ENCODINGS),
    ],
)
def test_bad_files_get_a_sentence(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read_words(path)


@pytest.mark.parametrize(
    ("noun", "label"),
    [
        ("cat", "cat"),
        ("Cat", "cat"),
        ("a cat", "CAT"),
        ("the cats", "cat"),
        ("cat", "cats"),
        ("buses", "bus"),
        ("cherries", "cherry"),
        ("cookies", "cookie"),
        ("knives", "knife"),
        ("wolf", "wolves"),
        ("people", "person"),
        ("glasses", "glass"),
        ("skis", "ski"),
        ("houses", "house"),
        ("traffic light", "traffic_light"),
        ("traffic-lights", "Traffic Light"),
        ("tv monitor", "tvmonitor"),
        ("a", "a"),
    ],
)
def test_the_same_noun(noun: str, label: str) -> None:
    assert match_labels([noun], ["zebra", label]) == {noun: label}


@pytest.mark.parametrize(
    ("noun", "label"),
    [("cat", "car"), ("bus", "busy"), ("glass", "glas"), ("", "cat"), ("cat", ""), ("ball", "balloon")],
)
def test_another_noun(noun: str, label: str) -> None:
    assert match_labels([noun], [label]) == {}


def test_a_compound_takes_the_only_label_of_its_head() -> None:
    assert match_labels(["sports ball"], ["ball", "cat"]) == {"sports ball": "ball"}
    assert match_labels(["balls"], ["sports ball", "cat"]) == {"balls": "sports ball"}


def test_an_ambiguous_compound_is_left_out() -> None:
    assert match_labels(["ball"], ["sports ball", "tennis ball"]) == {}
    assert match_labels(["sports ball", "tennis ball"], ["ball"]) == {}
    assert match_labels(["teddy bear", "bear"], ["bear"]) == {"bear": "bear"}
    assert match_labels(["bear"], ["teddy bear", "bear"]) == {"bear": "bear"}
    assert match_labels(["hot dog", "dog"], ["dog", "hot dog"]) == {"hot dog": "hot dog", "dog": "dog"}


def test_two_wordings_of_a_noun_share_its_label() -> None:
    assert match_labels(["cat", "cats"], ["cat"]) == {"cat": "cat", "cats": "cat"}


def test_every_coco_noun_is_its_own_label() -> None:
    assert match_labels(coco80(), coco80()) == {noun: noun for noun in coco80()}


BESIDE = (
    "{},",
    "{}.",
    "{}!",
    '"{}"',
    "“{}”",
    "‘{}’",
    "({})",
    "({}:1.2)",
    "(({}))",
    "[{}]",
    "{}…",
    "{}'s",
    "{}’s",
    "*{}*",
)


@pytest.mark.parametrize("shape", BESIDE)
def test_punctuation_beside_a_noun_does_not_count(shape: str) -> None:
    for noun in ("cat", "a cat", "red cats", "teddy bear"):
        assert same_noun(shape.format(noun), noun) and same_noun(noun, shape.format(noun))
        assert same_head(f"one big {shape.format(noun)}", noun)
    assert not same_noun(shape.format("cat"), "dog") and not same_noun(shape.format(""), "cat")


def test_names_with_brackets_stay_names() -> None:
    labels = ("crab_(animal)", "crab_(food)", "bow_(decorative_ribbons)", "bow_(weapon)")
    assert match_labels(labels, labels) == {label: label for label in labels}
    assert match_labels(["animal", "ribbons", "weapon"], labels) == {}
