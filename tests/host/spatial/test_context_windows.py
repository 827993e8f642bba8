"""The host shows the model a part of the batch at a time: guidance and recording see the whole of it all the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from support import host
from support.sampling import PROMPT, encode, noise_like, sample

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGES = 5


@pytest.fixture(scope="module")
def core() -> Any:
    host.start()
    import compinv_core.host.spatial.guidance as module

    return module


def windowed(model: Any, length: int = 2, overlap: int = 0, schedule: str = "standard_static", dim: int = 0) -> Any:
    """The model as the host's Context Windows (Manual) patches it."""
    import comfy.context_windows as windows

    clone = model.clone()
    clone.model_options["context_handler"] = windows.IndexListContextHandler(
        windows.get_matching_context_schedule(schedule),
        windows.get_matching_fuse_method("pyramid"),
        context_length=length,
        context_overlap=overlap,
        dim=dim,
    )
    return clone


def guided(core: Any, **settings: Any) -> tuple:
    from compinv_core.boxes.layout import Layout
    from compinv_core.spatial.settings import GuidanceConfig

    layout = Layout(("a cat", "a ball"), ((0, 0, 0.5, 1), (0.5, 0, 1, 1)), 64, 64)
    config = GuidanceConfig(strength=3000.0, threshold=0.1, max_iterations=2, guided_steps=2, **settings)
    model, clip, _ = host.load("tiny")
    with torch.inference_mode():
        return core.apply_layout_guidance(model, clip, PROMPT, layout, config)


@pytest.mark.parametrize(("length", "overlap"), [(2, 0), (2, 1), (3, 1), (IMAGES, 0)])
def test_guidance_is_that_of_the_whole_batch(core: Any, length: int, overlap: int) -> None:
    model, positive = guided(core)
    noise = noise_like(IMAGES)
    whole = sample(model, positive, noise)
    parts = sample(windowed(model, length, overlap), positive, noise)
    assert torch.allclose(parts, whole, atol=2e-4)


@pytest.mark.parametrize("method", ["gradient", "injection", "hybrid"])
def test_windows_of_the_picture_itself_are_guided(core: Any, method: str) -> None:
    model, positive = guided(core, method=method, injection_strength=1.0)
    strips = sample(windowed(model, length=6, overlap=2, dim=2), positive)
    plain = sample(windowed(host.load("tiny")[0], length=6, overlap=2, dim=2), encode())
    assert strips.isfinite().all() and not torch.allclose(strips, plain, atol=1e-3)


@pytest.mark.parametrize("method", ["gradient", "injection"])
def test_windows_of_a_pack_that_evaluates_alone(core: Any, method: str) -> None:
    """AnimateDiff-Evolved's wrappers ask for what only its own sampling function gives."""
    from comfy.patcher_extension import WrappersMP

    from compinv_core.basics.errors import UserError

    inside = []

    def own_sampling(executor: Any, *args: Any, **kwargs: Any) -> Any:
        inside.append(True)
        try:
            return executor(*args, **kwargs)
        finally:
            inside.pop()

    def windows(executor: Any, *args: Any, **kwargs: Any) -> Any:
        return executor(*args, **kwargs) if inside else {}["ad_params"]

    model, positive = guided(core, method=method, injection_strength=1.0)
    model = model.clone()
    model.add_wrapper(WrappersMP.PREDICT_NOISE, own_sampling)
    model.add_wrapper(WrappersMP.CALC_COND_BATCH, windows)
    if method == "injection":
        assert not torch.allclose(sample(model, positive), sample(host.load("tiny")[0], encode()), atol=1e-3)
    else:
        with pytest.raises(UserError, match="choose the method injection"):
            sample(model, positive)


@pytest.mark.parametrize(("length", "overlap"), [(2, 0), (2, 1), (3, 2)])
@pytest.mark.parametrize("with_guidance", [False, True])
def test_the_recorded_maps_are_those_of_the_whole_batch(
    core: Any, length: int, overlap: int, with_guidance: bool
) -> None:
    from compinv_core.host.recording.recorder import record_attention

    model, clip, _ = host.load("tiny")
    positive = encode()
    if with_guidance:
        model, positive = guided(core)
    noise = noise_like(IMAGES)
    records = []
    for patched in (model, windowed(model, length, overlap)):
        with torch.inference_mode():
            recorded, recording = record_attention(patched, clip, PROMPT, ("a cat", "a ball"))
        records.append(recording.record_of(sample(recorded, positive, noise)))
    whole, parts = records
    assert parts.images == IMAGES
    for one, other in zip(whole.frames, parts.frames, strict=True):
        for first, second in zip(one.maps, other.maps, strict=True):
            assert torch.allclose(first.values, second.values, atol=1e-4)
    assert [frame.unguided is None for frame in whole.frames] == [frame.unguided is None for frame in parts.frames]


def test_windows_of_the_picture_itself_are_refused_in_a_sentence(core: Any) -> None:
    from compinv_core.basics.errors import UserError
    from compinv_core.host.recording.recorder import record_attention

    model, clip, _ = host.load("tiny")
    with torch.inference_mode():
        recorded, _ = record_attention(windowed(model, length=4, dim=2), clip, PROMPT, ("a cat", "a ball"))
    with pytest.raises(UserError, match="set `dim` of Context Windows to 0"):
        sample(recorded, encode())
