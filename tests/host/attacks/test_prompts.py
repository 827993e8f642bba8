"""Thousands of prompts: the tokens of their phrases are those of an independent reading."""

from __future__ import annotations

import logging
import random
from collections import Counter
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from compinv_core.basics.errors import UserError
from support import host
from support.attacks import prompts
from support.attacks.amounts import seeds

COUNT = 5000


@pytest.fixture(scope="module")
def clip() -> Any:
    folder = host.start() / "models" / "embeddings"
    for widths, width in ((prompts.VECTORS, 768), (prompts.WIDE, 1024)):
        for number, (name, count) in enumerate(widths.items()):
            vectors = torch.randn(count, width, generator=torch.Generator().manual_seed(number))
            save_file({"emb_params": vectors}, folder / f"{name}.safetensors")
    return host.load("tiny")[1]


@pytest.mark.filterwarnings("ignore")
def test_the_tokens_of_phrases_are_those_of_an_independent_reading(clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from compinv_core.host.text.spans import find_spans

    # Thousands of warnings of missing embeddings.
    monkeypatch.setattr(logging.root.manager, "disable", logging.WARNING)
    seen: Counter[str] = Counter()
    for seed in seeds(COUNT, COUNT):
        prompt = prompts.generated(random.Random(seed))
        if not prompt.phrases:
            continue
        expected = prompts.expected(prompt)
        case = f"seed {seed}: {prompt.phrases} in {prompt.text!r}"
        # One that a longer phrase has taken is not there, either.
        if expected is None or () in expected:
            with pytest.raises(UserError):
                find_spans(clip, prompt.text, prompt.phrases, "Test Node")
            seen["refused"] += 1
            continue
        found = [span.tokens for span in find_spans(clip, prompt.text, prompt.phrases, "Test Node")]
        assert found == expected, case
        seen["found"] += 1
        seen["long"] += max(position for span in found for position in span) > prompts.CHUNK
        counts = [len(prompts.phrase_tokens(phrase) or ()) for phrase in prompt.phrases]
        seen["repeated"] += any(len(span) > count for span, count in zip(found, counts, strict=True))
        seen["embedding"] += any("embedding:" in phrase for phrase in prompt.phrases)
    assert seen["found"] > COUNT / 2 and min(seen.values()) > COUNT / 20, seen
