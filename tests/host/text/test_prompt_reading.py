"""What the host really encodes of a prompt, against its own text encoder."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from compinv_core.basics.errors import UserError
from support import host

ODD_NAMES = ("fox(v2)", "fox,red", "fox:a", "sub/fox", "fox.2", "fox'", "лиса", "fox-a_b", "Fox", "((x", "fox;", "50%")


def vectors(count: int, width: int = 768) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count)) * 0.0137


@pytest.fixture(scope="module")
def clip() -> Any:
    folder = host.start() / "models" / "embeddings"
    (folder / "sub").mkdir(exist_ok=True)
    for number, name in enumerate(ODD_NAMES):
        save_file({"emb_params": vectors(number % 3 + 1)}, folder / f"{name}.safetensors")
    torch.save({"string_to_param": {"*": vectors(2)}}, folder / "old.pt")
    save_file({"emb_params": vectors(4, 1024)}, folder / "wide.safetensors")
    save_file({"emb_params": torch.full((2, 768), torch.nan)}, folder / "broken.safetensors")
    save_file({"emb_params": vectors(2)[:0]}, folder / "none.safetensors")
    save_file({"emb_params": vectors(4).reshape(2, 2, 768)}, folder / "deep.safetensors")
    save_file({"emb_params": vectors(3).reshape(3, 1, 768)}, folder / "shallow.safetensors")
    save_file({"emb_params": vectors(1)[0]}, folder / "flat.safetensors")
    save_file({}, folder / "empty.safetensors")
    (folder / "text.safetensors").write_bytes(b"not a tensor file")
    (folder / "code.pt").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    return host.load("tiny")[1]


def read(clip: Any, text: str) -> Any:
    from compinv_core.host.text.reading import read_prompt

    return read_prompt(clip, text, "Test Node")


def written(name: str) -> str:
    return "embedding:" + name.replace("(", r"\(").replace(")", r"\)")


def generated_prompts(count: int) -> list[str]:
    """Prompts of words, punctuation, emphasis and embeddings, sound and not, of one chunk to four."""
    rng = random.Random(0)
    words = ["a cat", "ball", "xylophonist", "the cat's toy", "red", "and", "über", "猫", "beside a big old house"]
    words += [f" {written(name)} " for name in (*ODD_NAMES, "old", "flat", "shallow")]
    words += [" embedding:wide ", " embedding:none ", " embedding:nowhere ", " embedding:fox,,", " embedding:wide<x> "]
    prompts = []
    for _ in range(count):
        parts = []
        for _ in range(rng.choice((1, 3, 8, 30, 80))):
            part = rng.choice(words)
            shape = rng.choice(("{}", "{}", "{}", "({})", "({}:1.3)", "(({}:0.5) thing:1.1)", "[{}]", r"\({}\)"))
            parts.append(shape.format(part) + rng.choice((" ", " ", ", ", ". ", "!", "\n")))
        prompts.append("".join(parts))
    return prompts


def test_hundreds_of_prompts_are_read_as_the_host_encodes_them(clip: Any) -> None:
    """Position by position, the encoder's own input rows are those of the tokens that were read."""
    model = clip.cond_stage_model.clip_l
    table = model.transformer.get_input_embeddings().weight
    dropped = long = 0
    for prompt in generated_prompts(300):
        (reading,) = read(clip, prompt).encoders
        (chunks,) = clip.tokenize(prompt).values()
        assert len(reading.chunks) == len(chunks)
        assert reading.weights == tuple(tuple(weight for _, weight in chunk) for chunk in chunks)
        found: list[int] = []
        for number, (tokens, chunk) in enumerate(zip(reading.chunks, chunks, strict=True)):
            rows, *_, info = model.process_tokens([[token for token, _ in chunk]], table.device)
            ours = torch.stack([t if isinstance(t, torch.Tensor) else table[t].float() for t in map(flat, tokens)])
            assert torch.equal(rows[0], ours), prompt
            found += [77 * number + each["index"] for each in info]
        assert [position for each in reading.embeddings for position in each.positions] == found
        dropped += any(word.name == "wide" for word in reading.dropped)
        long += len(chunks) > 1
    assert dropped > 20 and long > 50


def flat(token: Any) -> Any:
    return token.flatten() if isinstance(token, torch.Tensor) else token


def test_content_is_everything_but_start_end_and_padding(clip: Any) -> None:
    (reading,) = read(clip, "a (cat:1.3) embedding:fox,red embedding:wide sits").encoders
    assert [position for position, _ in reading.content] == [1, 2, 3, 4, 5]
    assert [isinstance(token, torch.Tensor) for token in reading.tokens] == [False, False, True, True, False]
    assert reading.weights[0][:4] == (1.0, 1.0, 1.3, 1.0)
    assert [word.strip() for word in reading.words if word.strip()] == ["a", "cat", "sits"]
    (fox,) = reading.embeddings
    assert fox.name == "fox,red" and fox.positions == (3, 4) and torch.equal(fox.vectors, vectors(2))


def test_listening_leaves_the_hosts_objects_as_they_are(clip: Any) -> None:
    before = dict(vars(clip)), dict(vars(clip.tokenizer)), dict(vars(clip.tokenizer.clip_l))
    read(clip, "a cat, embedding:fox,red and embedding:nowhere")
    assert before == (vars(clip), vars(clip.tokenizer), vars(clip.tokenizer.clip_l))


def spans(clip: Any, prompt: str, *phrases: str) -> list[tuple[int, ...]]:
    from compinv_core.host.text.spans import find_spans

    return [span.tokens for span in find_spans(clip, prompt, phrases, "Test Node")]


@pytest.mark.parametrize("name", [*ODD_NAMES, "old", "flat", "shallow"])
@pytest.mark.parametrize(
    "shape", ["{} thing", "({} thing:1.3)", "(({}) thing)", "{}, thing", "{}\tthing", "{}<b> thing"]
)
def test_every_name_that_the_host_takes_works_in_phrases(clip: Any, name: str, shape: str) -> None:
    text = shape.format(written(name))
    count = len(read(clip, written(name)).encoders[0].embeddings[0].positions)
    prompt = f"a {text} and a ball"
    phrase, ball = spans(clip, prompt, " ".join(text.split()), "a ball")
    assert set(range(2, 2 + count)) <= set(phrase) and ball == (max(phrase) + 2, max(phrase) + 3)
    # Without the prefix, as people write it.
    assert spans(clip, prompt, name)[0][:count] == tuple(range(2, 2 + count))


@pytest.mark.parametrize(
    ("word", "name", "reason"),
    [
        ("embedding:fox:1.3", "fox:1.3", "no file of that name"),
        ("(embedding:nowhere:1.3)", "nowhere", "no file of that name"),
        ("embedding:fox,blue", "fox,blue", "no file of that name"),
        ("embedding:nowhere,", "nowhere", "no file of that name"),
        (r"embedding:fox\(v3\)", "fox(v3)", "no file of that name"),
        ("embedding:wolf(v2)", "wolf", "no file of that name"),
        ("embedding:old.", "old.", "no file of that name"),
        ("embedding:sub/wolf", "sub/wolf", "no file of that name"),
        ("embedding:../../secret", "../../secret", "no file of that name"),
        ("embedding:" + "x" * 300, "xxx", "no file of that name"),
        ("embedding:wide", "wide", "1024 wide and this text encoder 768"),
        ("embedding:wide.safetensors", "wide.safetensors", "1024 wide"),
        ("embedding:broken", "broken", "NaN or infinity"),
        ("embedding:none", "none", "holds no vector"),
        ("embedding:text", "text", "cannot read its file"),
        ("embedding:code", "code", "cannot read its file"),
    ],
)
def test_a_word_that_takes_no_effect_is_named_with_the_reason(
    clip: Any, caplog: pytest.LogCaptureFixture, word: str, name: str, reason: str
) -> None:
    with caplog.at_level(logging.WARNING, "compinv"):
        spans(clip, f"a ball and {word} cat", "a ball")
    (message,) = [record.message for record in caplog.records if record.name == "compinv"]
    assert message.startswith("Test Node: the prompt asks for the embedding") and f'"{name}' in message
    assert reason in message
    with pytest.raises(UserError, match=reason) as caught:
        spans(clip, f"a ball and {word} cat", "a ball", f"{word} cat")
    assert f'"{name}' in str(caught.value) and str(caught.value).count("; ") == 1
    with pytest.raises(UserError):
        spans(clip, f"a ball and {word} cat", "a ball", f"{name} cat")


@pytest.mark.parametrize("word", ["embedding:empty", "embedding:deep", "embedding:", "a embedding: "])
def test_what_the_host_fails_at_gets_a_sentence(clip: Any, word: str) -> None:
    with pytest.raises(UserError, match=r"^Test Node: the host cannot read .*; remove or correct the word"):
        spans(clip, f"a ball and {word}", "a ball")


@pytest.mark.parametrize("before", ["", "very " * 80, "very " * 72])
@pytest.mark.parametrize("word", ["embedding:wide", "embedding:nowhere", "embedding:none", "(embedding:wide:1.2)"])
def test_a_dropped_word_does_not_shift_what_stands_behind_it(clip: Any, before: str, word: str) -> None:
    phrases = ("a cat", "embedding:fox,red fox", "a ball")
    found = spans(clip, f"a cat and {before}{word} embedding:fox,red fox with {word} a ball", *phrases)
    rows = encoded_rows(clip, f"a cat and {before}{word} embedding:fox,red fox with {word} a ball")
    ball = list(map(rows.__getitem__, found[2]))
    (expected,) = clip.tokenize("a ball").values()
    table = clip.cond_stage_model.clip_l.transformer.get_input_embeddings().weight
    assert [torch.equal(row, table[token].float()) for row, (token, _) in zip(ball, expected[0][1:3], strict=True)] == [
        True, True
    ]  # fmt: skip
    assert all(torch.equal(rows[p], v) for p, v in zip(found[1], vectors(2), strict=False))


def encoded_rows(clip: Any, prompt: str) -> list[torch.Tensor]:
    """The rows that the host's encoder starts from, of all chunks."""
    model = clip.cond_stage_model.clip_l
    (chunks,) = clip.tokenize(prompt).values()
    rows = (model.process_tokens([[token for token, _ in chunk]], "cpu")[0][0] for chunk in chunks)
    return list(itertools.chain.from_iterable(rows))


@pytest.mark.parametrize("phrase", ["a wide road", '"a wide road"', "a wide road:1.2)"])
def test_a_word_with_the_name_of_a_dropped_embedding_is_a_word(clip: Any, phrase: str) -> None:
    assert spans(clip, "embedding:wide cat by a wide road", phrase) == [(3, 4, 5)]


def test_two_embeddings_in_one_phrase(clip: Any) -> None:
    prompt = "embedding:fox,red embedding:old fox and embedding:old fox"
    assert spans(clip, prompt, "embedding:fox,red embedding:old fox", "old fox") == [(1, 2, 3, 4, 5), (7, 8, 9)]


@pytest.mark.parametrize("phrase", ["a big cat", "(a big cat)", "a (big:1.4) cat", "((a big) cat:0.7)"])
def test_phrases_that_differ_in_emphasis_only_are_the_same_tokens(clip: Any, phrase: str) -> None:
    for prompt in ("a big cat sits", "a (big cat:1.2) sits", "(a ((big)) cat sits)"):
        assert spans(clip, prompt, phrase) == [(1, 2, 3)]


@pytest.mark.parametrize(
    ("prompt", "phrase", "expected"),
    [
        ("a cat and a ball", "a cat,", (1, 2)),
        ("a cat and a ball", '"a cat"', (1, 2)),
        ("a cat and a ball", "“a cat”!", (1, 2)),
        ("a cat, sitting", "a cat sitting", (1, 2, 4)),
        ("a cat sitting", "a cat, sitting", (1, 2, 3)),
        ('a "cat" and a ball', "a cat", (1, 3)),
        ("a cat’s toy", "a cat's toy", (1, 2, 6)),
        ("a cat's toy", "a cat’s toy", (1, 2, 4)),
        ("(a cat, a ball:1.2)", "a ball:1.2)", (4, 5)),
        ("(a cat, a ball:1.2)", "(a cat", (1, 2)),
        ("a embedding:old thing", '"embedding:old thing"', (2, 3, 4)),
        ("a embedding:old thing", "(old thing:1.2),", (2, 3, 4)),
        (r"a embedding:fox\(v2\) thing", "fox(v2), thing", (2, 3)),
        # Where the punctuation is in the prompt as well, it belongs to the phrase.
        ("a cat, and a ball", "a cat,", (1, 2, 3)),
        ("a cat and a ball", "!", None),
        ("cats and a ball", "a cat,", None),
    ],
)
def test_punctuation_beside_a_phrase(clip: Any, prompt: str, phrase: str, expected: tuple[int, ...] | None) -> None:
    if expected is None:
        with pytest.raises(UserError, match="is not in the prompt"):
            spans(clip, prompt, phrase)
    else:
        assert spans(clip, prompt, phrase) == [expected]


@pytest.mark.parametrize(
    "template",
    [
        "a photo of {} asleep", "{}", "{}, a photo", "a (small:1.3) photo of {}", "a photo of ({} asleep:1.2)",
        r"a {} \(drawn\)", "a photo of {} and embedding:fox,red fox",
    ],
)  # fmt: skip
def test_templates_are_encoded_as_prompts(clip: Any, template: str) -> None:
    from compinv_core.host.text.sentences import TemplateEncoder, read_sentence

    prompt = template.replace("{}", "embedding:old ", 1)
    with torch.inference_mode():
        (expected, _), *_ = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
        torch.testing.assert_close(TemplateEncoder(clip, [template], 2, "cat")(0, vectors(2)).tokens, expected)
        torch.testing.assert_close(read_sentence(clip, prompt, "class_prompt").encode(clip).tokens, expected)


def test_emphasis_and_embeddings_in_templates_leave_the_vectors_their_gradient(clip: Any) -> None:
    from compinv_core.host.text.encoder import text_encoder_gradients
    from compinv_core.host.text.sentences import TemplateEncoder

    encoder = TemplateEncoder(clip, ["a ({}:1.2) and embedding:fox,red fox"], 2, "cat")
    learned = vectors(2).requires_grad_(True)
    with text_encoder_gradients(clip):
        encoder(0, learned).tokens.square().sum().backward()
    assert learned.grad is not None and learned.grad.abs().sum(1).gt(0).all()


@pytest.mark.parametrize("read_it", ["template", "sentence"])
def test_a_training_sentence_with_a_dropped_word_is_refused(clip: Any, read_it: str) -> None:
    from compinv_core.host.text.sentences import TemplateEncoder, read_sentence

    calls: dict[str, Callable[[str], Any]] = {
        "template": lambda text: TemplateEncoder(clip, [text + " {}"], 1, "cat", "custom_templates"),
        "sentence": lambda text: read_sentence(clip, text, "custom_templates"),
    }
    for text, part in (("a embedding:wide cat", '"wide", but it is 1024 wide'), ("very " * 80, "tokens too long")):
        with pytest.raises(UserError, match=f"^custom_templates.*{part}"):
            calls[read_it](text)


def test_templates_are_read_without_a_folder_of_embeddings(clip: Any) -> None:
    import comfy.sd

    from compinv_core.host.text.sentences import TemplateEncoder
    from support import checkpoints

    plain: Any
    _, plain, _ = comfy.sd.load_checkpoint_guess_config(str(checkpoints.build("tiny")), output_vae=False)[:3]
    with torch.inference_mode():
        one, other = (
            TemplateEncoder(each, ["a photo of {} asleep"], 2, "cat")(0, vectors(2)).tokens for each in (clip, plain)
        )
    assert torch.equal(one, other)
