"""Where the phrases of a layout are in an encoded prompt."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from support import host


@pytest.fixture(scope="module")
def find():
    base = host.start()
    for name, vectors in (("my-cat", 1), ("my-dog", 3), ("ball", 1)):
        values = torch.randn(vectors, 768, generator=torch.Generator().manual_seed(vectors)) * 0.0137
        save_file({name: values}, str(base / "models" / "embeddings" / f"{name}.safetensors"))
    _, clip, _ = host.load("tiny")
    from compinv_core.host.text.spans import find_spans

    def tokens(prompt: str, *phrases: str) -> list[tuple[int, ...]]:
        return [span.tokens for span in find_spans(clip, prompt, phrases, "Test Node")]

    tokens.spans = lambda prompt, *phrases: find_spans(clip, prompt, phrases, "Test Node")
    return tokens


# Position 0 is the start token.
@pytest.mark.parametrize(
    ("prompt", "phrases", "expected"),
    [
        ("a cat and a ball", ("cat", "a ball"), [(2,), (4, 5)]),
        ("A Cat and a BALL", ("a cat", "ball"), [(1, 2), (5,)]),
        ("a cat, and a ball.", ("cat", "ball"), [(2,), (6,)]),
        ("a (red:1.2) ball", ("red ball",), [(2, 3)]),
        ("a cat and (a backpack:1.3)", ("a backpack",), [(4, 5)]),
        ("a ((cat)) by (the (red ball:0.5):1.1)", ("cat", "red ball"), [(2,), (5, 6)]),
        # "backpack" is one token; a teddy bear two words; "xylophonist" is split, which no space shows.
        ("a teddy bear", ("teddy bear",), [(2, 3)]),
        ("a cat beside a cat", ("cat",), [(2, 5)]),
        # An embedding of k vectors takes k positions.
        ("embedding:my-cat cat and a ball", ("embedding:my-cat cat", "a ball"), [(1, 2), (4, 5)]),
        ("embedding:my-cat cat and a ball", ("my-cat cat",), [(1, 2)]),
        ("a embedding:my-dog dog on grass", ("my-dog dog", "grass"), [(2, 3, 4, 5), (7,)]),
        ("embedding:my-cat cat, embedding:my-dog dog", ("my-cat cat", "my-dog dog"), [(1, 2), (4, 5, 6, 7)]),
        ("a (embedding:my-cat cat:1.2) sits", ("my-cat cat",), [(2, 3)]),
        # An embedding with the name of an ordinary word.
        ("embedding:ball ball and a cat", ("embedding:ball ball", "a cat"), [(1, 2), (4, 5)]),
        ("embedding:ball and a ball", ("embedding:ball", "a ball"), [(1,), (3, 4)]),
        ("embedding:ball on grass", ("ball",), [(1,)]),
        # Longer phrases keep their tokens to themselves.
        ("embedding:my-cat cat and a cat", ("cat", "my-cat cat"), [(5,), (1, 2)]),
    ],
)
def test_tokens_of_phrases(find, prompt: str, phrases: tuple[str, ...], expected: list) -> None:
    assert find(prompt, *phrases) == expected


def test_words_of_several_tokens(find) -> None:
    (span,) = find("a xylophonist plays", "xylophonist")
    assert len(span) > 1
    assert span == tuple(range(2, 2 + len(span)))


def test_second_chunk_of_a_long_prompt(find) -> None:
    filler = "very " * 80
    (cat, ball) = find(f"a cat and a {filler} red ball", "a cat", "red ball")
    assert cat == (1, 2)
    # 84 words before "red"; the first chunk holds 75 of them between its start and end tokens.
    assert min(ball) > 77
    assert len(ball) == 2


def test_placeholder_is_the_learned_part(find) -> None:
    dog, ball = find.spans("embedding:my-dog dog and a ball", "my-dog dog", "a ball")
    assert dog.placeholder == (1, 2, 3)
    assert ball.placeholder == ()


@pytest.mark.parametrize(
    ("prompt", "phrases", "parts"),
    [
        ("a cat and a ball", ("a dog",), ('"a dog"', '"a cat and a ball"', "`text`")),
        ("two cats", ("cat",), ('"cat"', '"two cats"')),
        ("embedding:my-cat cat", ("cat", "my-cat cat"), ('"cat"', 'only inside "my-cat cat"')),
        ("embedding:no-such cat", ("embedding:no-such cat",), ('"no-such"', "embeddings folder")),
    ],
)
def test_missing_phrases_get_one_sentence(find, prompt: str, phrases: tuple[str, ...], parts: tuple[str, ...]) -> None:
    from compinv_core.basics.errors import UserError

    with pytest.raises(UserError) as caught:
        find(prompt, *phrases)
    message = str(caught.value)
    assert message.startswith("Test Node: ")
    assert all(part in message for part in parts), message
