"""The tokens that the editor shows before anything runs are those that are found when it runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from support import host

LONG = "very " * 72
# Prompt, phrases, and the chips of each phrase by hand; None where it catches nothing.
PROMPTS = {
    "weights": ("a (red cat:1.3) and a [ball]", ["red cat", "ball"], [["red", "cat"], ["ball"]]),
    "nested brackets": ("a ((cat)) by (a (red ball:.5):1.1)", ["a cat", "red ball"], [["a", "cat"], ["red", "ball"]]),
    "escapes": (r"a cat \(red\) by a ball", [r"a cat \(red\)", "ball"], [["a", "cat", "(", "red", ")"], ["ball"]]),
    "accents": ("a café and a señor", ["a café", "señor"], [["a", "café"], ["señ", "or"]]),
    "punctuation": ('a "cat", a ball!', ["a cat", "a ball"], [["a", "cat"], ["a", "ball"]]),
    "over the border": (f"cat {LONG}a teddy bear sits", ["a teddy bear", "cat"], [["a", "teddy", "bear"], ["cat"]]),
    "two-token nouns": ("a teddy bear and a hot dog", ["teddy bear", "hot dog"], [["teddy", "bear"], ["hot", "dog"]]),
    "several vectors": (
        "embedding:chip-dog dog and a ball",
        ["embedding:chip-dog dog", "a ball"],
        [["chip-dog 1/3", "chip-dog 2/3", "chip-dog 3/3", "dog"], ["a", "ball"]],
    ),
    "missing embedding": ("embedding:chip-no cat, a ball", ["embedding:chip-no cat", "a ball"], [None, ["a", "ball"]]),
    "there twice": ("a cat and a cat", ["a cat"], [["a", "cat", "a", "cat"]]),
    "not there": ("two cats and a ball", ["cat", "ball"], [None, ["ball"]]),
}  # fmt: skip


@pytest.fixture(scope="module")
def clip() -> Any:
    base = host.start()
    values = torch.randn(3, 768, generator=torch.Generator().manual_seed(3)) * 0.0137
    save_file({"chip-dog": values}, str(base / "models" / "embeddings" / "chip-dog.safetensors"))
    wide = torch.randn(2, 1024, generator=torch.Generator().manual_seed(3)) * 0.0137
    save_file({"chip-wide": wide}, str(base / "models" / "embeddings" / "chip-wide.safetensors"))
    return host.load("tiny")[1]


def answer(text: str, phrases: list[str], **more: str) -> dict[str, Any]:
    from compinv_core.host.graph.tokens import tokens_caught

    return tokens_caught({"text": text, "phrases": phrases, **more})


@pytest.mark.parametrize("name", PROMPTS)
def test_chips_are_what_execution_finds(clip: Any, name: str) -> None:
    from compinv_core.basics.errors import UserError
    from compinv_core.host.text.spans import find_spans

    text, phrases, expected = PROMPTS[name]
    told = answer(text, phrases)
    # Position 0 of each chunk is the start token.
    chips = {77 * c + p: chip for c, chunk in enumerate(told["chunks"]) for p, chip in enumerate(chunk, 1)}
    for number, wanted in enumerate(expected):
        mine = {position: chip["text"] for position, chip in chips.items() if chip["phrase"] == number}
        assert list(mine.values()) == (wanted or [])
        if wanted is None:
            with pytest.raises(UserError) as caught:
                find_spans(clip, text, phrases, "Prompt")
            assert str(caught.value)[len("Prompt: ") + 1 :] in " ".join(told["said"])
    if None not in expected:
        found = find_spans(clip, text, phrases, "Node")
        shown = [tuple(p for p, chip in chips.items() if chip["phrase"] == n) for n in range(len(phrases))]
        assert shown == [span.tokens for span in found] and told["said"] == []


def test_a_phrase_over_the_border_stands_in_two_chunks(clip: Any) -> None:
    text, phrases, _ = PROMPTS["over the border"]
    first, second = (
        [chip["text"] for chip in chunk if chip["phrase"] == 0] for chunk in answer(text, phrases)["chunks"]
    )
    assert (first, second) == (["a", "teddy"], ["bear"])


def test_weights_stand_on_the_chips(clip: Any) -> None:
    ((a, red, *_),) = answer("a (red:1.25) cat", [])["chunks"]
    assert (a["weight"], red["weight"]) == (1.0, 1.25)


def test_a_phrase_given_twice_and_choices_are_said(clip: Any) -> None:
    said = answer("a {red|blue} cat", ["a", "cat", "A"])["said"]
    assert said[0] == 'The phrase "A" is given twice.' and "as it is typed" in said[1] and len(said) == 2
    assert answer(r"a \{red cat", [])["said"] == []


def test_the_family_is_one_that_has_the_words(clip: Any) -> None:
    assert answer("embedding:chip-dog dog", [])["family"] == "Stable Diffusion 1"
    told = answer("embedding:chip-wide dog", ["embedding:chip-wide dog"])
    assert told["family"] == "Stable Diffusion 2" and told["said"] == []
    assert [chip["phrase"] for chip in told["chunks"][0]] == [0, 0, 0]
    same = [answer("a cat, red", ["cat"], family=f"Stable Diffusion {name}")["chunks"] for name in ("1", "2", "XL")]
    assert same[0] == same[1] == same[2]


@pytest.mark.parametrize(
    "question",
    [{}, {"text": 1, "phrases": []}, {"text": "", "phrases": [1]}, {"text": "", "phrases": [], "family": "x"}],
)
def test_other_questions_are_refused(clip: Any, question: dict) -> None:
    from compinv_core.basics.errors import UserError
    from compinv_core.host.graph.tokens import tokens_caught

    with pytest.raises(UserError):
        tokens_caught({"text": "", "phrases": []} | question if question else {})
