"""Wirings in which guidance does nothing: somebody is told."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from support import host
from support.sampling import PROMPT, encode, sample

NAME = "Apply Layout Guidance"


@pytest.fixture(scope="module")
def core() -> Any:
    host.start()
    import compinv_core.host.spatial.guidance as module

    return module


def guide(core: Any, boxes: bool = True, **settings: Any) -> tuple:
    from compinv_core.boxes.layout import Layout
    from compinv_core.spatial.settings import GuidanceConfig

    two = (("a cat", "a ball"), ((0, 0, 0.5, 1), (0.5, 0, 1, 1)))
    layout = Layout(*(two if boxes else ((), ())), 64, 64)
    model, clip, _ = host.load("tiny")
    with torch.inference_mode():
        return core.apply_layout_guidance(model, clip, PROMPT, layout, GuidanceConfig(**settings))


def between(positive: list, start: float, end: float) -> list:
    import node_helpers

    return node_helpers.conditioning_set_values(positive, {"start_percent": start, "end_percent": end})


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_words_that_count_only_later(core: Any, caplog: pytest.LogCaptureFixture) -> None:
    model, positive = guide(core, guided_steps=1)
    sample(model, [*between(positive, 0.9, 1.0), *between(encode("on the grass"), 0.0, 0.9)])
    (warning,) = said(caplog)
    assert "not in use in the guided steps" in warning


@pytest.mark.parametrize("options", [{"end_percent": 0.0}, {"end_percent": 0.01}])
def test_no_step_within_the_range(core: Any, caplog: pytest.LogCaptureFixture, options: dict) -> None:
    model, positive = guide(core, **options)
    sample(model, positive, denoise=0.3)
    (warning,) = said(caplog)
    assert "no step of this sampling was guided" in warning


def test_an_empty_layout(core: Any, caplog: pytest.LogCaptureFixture) -> None:
    guide(core, boxes=False)
    (warning,) = said(caplog)
    assert "the layout has no box" in warning


@pytest.mark.parametrize("off", [{"strength": 0.0}, {"max_iterations": 0}, {"guided_steps": 0}])
def test_switching_it_off_is_no_mistake(core: Any, caplog: pytest.LogCaptureFixture, off: dict) -> None:
    sample(*guide(core, **off))
    assert not said(caplog)


def test_guidance_that_guides_says_nothing(core: Any, caplog: pytest.LogCaptureFixture) -> None:
    model, positive = guide(core, threshold=1.0)
    sample(model, positive)
    sample(model, [*positive, *encode("on the grass")])
    assert not said(caplog)


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


GUIDED = {
    "ck": node("CheckpointLoaderSimple", ckpt_name="x"),
    "gd": node("CompInvApplyLayoutGuidance", model=["ck", 0], clip=["ck", 1], text="a cat"),
    "lora": node("LoraLoaderModelOnly", model=["gd", 0], lora_name="x"),
    "range": node("ConditioningSetTimestepRange", conditioning=["gd", 1], start=0.0, end=1.0),
    "both": node("ConditioningCombine", conditioning_1=["range", 0], conditioning_2=["other", 0]),
    "other": node("CLIPTextEncode", clip=["ck", 1], text="x"),
}
WIRINGS = [
    ({"ks": node("KSampler", model=["gd", 0], positive=["gd", 1])}, 0),
    ({"ks": node("KSampler", model=["ck", 0], positive=["gd", 1])}, 1),
    ({"ks": node("KSampler", model=["lora", 0], positive=["both", 0])}, 0),
    ({"ks": node("KSampler", model=["ck", 0], positive=["both", 0])}, 1),
    ({"ks": node("KSampler", model=["ck", 0], positive=["other", 0])}, 0),
    ({"gu": node("BasicGuider", model=["ck", 0], conditioning=["range", 0])}, 1),
    ({"gu": node("CFGGuider", model=["gd", 0], positive=["range", 0], negative=["other", 0])}, 0),
    (
        {
            "one": node("KSampler", model=["gd", 0], positive=["gd", 1]),
            "two": node("KSampler", model=["ck", 0], positive=["gd", 1], latent_image=["one", 0]),
        },
        1,
    ),
    (
        {
            "one": node("KSampler", model=["gd", 0], positive=["gd", 1]),
            "two": node("KSampler", model=["ck", 0], positive=["other", 0], latent_image=["one", 0]),
        },
        0,
    ),
    ({"ks": node("UnknownNode", model=["ck", 0], positive=["gd", 1])}, 1),
    ({"ks": node("KSampler", model=["ck", 0], positive=["gd", "1"], negative=None)}, 0),
]


@pytest.mark.parametrize(("samplers", "warnings"), WIRINGS)
def test_a_model_wired_past_the_node(core: Any, samplers: dict, warnings: int) -> None:
    from compinv_core.host.sampling.wiring import miswired

    found = miswired({**GUIDED, **samplers}, "gd", NAME)
    assert len(found) == warnings
    assert all("connect its `model`, too" in warning for warning in found)


@pytest.mark.parametrize(("prompt", "node_id"), [(None, "gd"), ({}, "gd"), (GUIDED, None), (GUIDED, "5:3")])
def test_an_unknown_graph_says_nothing(core: Any, prompt: Any, node_id: str | None) -> None:
    from compinv_core.host.sampling.wiring import miswired

    assert miswired(prompt, node_id, NAME) == []
