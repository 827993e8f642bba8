"""Recording attention on SDXL and Stable Diffusion 2: the same picture, and the attention that was really there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from support import host
from support.models.families import FamilyCase, two_texts
from support.sampling import PROMPT, encode, noise_like, sample

pytestmark = pytest.mark.usefixtures("one_thread")
PHRASES = ("a cat", "a ball")
LONG_PROMPT = f"a cat {'sitting on a long bench in the warm evening light, ' * 9}and a ball"
SIZE = (16, 24)


@pytest.fixture(scope="module")
def recorder() -> Any:
    host.start()
    import compinv_core.host.recording.recorder as module

    return module


def record(recorder: Any, case: FamilyCase, text: str = PROMPT, phrases: tuple = PHRASES) -> tuple:
    model, clip, _ = case.loaded
    with torch.inference_mode():
        return recorder.record_attention(model, clip, text, phrases)


def painted(case: FamilyCase, model: Any, positive: list, **options: Any) -> torch.Tensor:
    return sample(model, positive, noise_like(1, *SIZE), clip=case.loaded[1], **{"steps": 2, **options})


def test_every_step_is_recorded_and_no_bit_changes(recorder: Any, case: FamilyCase) -> None:
    model, clip, _ = case.loaded
    recorded, recording = record(recorder, case)
    samples = painted(case, recorded, encode(clip=clip), cfg=4.0)
    assert torch.equal(samples, painted(case, model, encode(clip=clip), cfg=4.0))
    found = recording.record_of(samples)
    assert [frame.step for frame in found.frames] == [0, 1]
    for frame in found.frames:
        assert all(maps.values.shape[:2] == (1, 2) and maps.values.isfinite().all() for maps in frame.maps)
        assert all((maps.values > 0).all() for maps in frame.maps)
    sizes = {maps.values.shape[2:] for maps in found.frames[0].maps}
    # The middle of SDXL, without a level of its own, and the level above it are equally fine.
    assert sizes == {"sdxl": {(4, 6)}, "sd2": {(2, 3), (4, 6)}}[case.kind]


def test_the_maps_are_the_attention_of_the_model(recorder: Any, case: FamilyCase) -> None:
    """Against queries and keys caught at the layers, averaged over heads, layers and tokens."""
    model, clip, _ = case.loaded
    unet = model.model.diffusion_model
    seen: list[torch.Tensor] = []

    def look(layer: Any, inputs: tuple, named: dict[str, Any]) -> None:
        query, key = (
            value.reshape(len(value), layer.heads, -1).permute(1, 0, 2).double()
            for value in (layer.to_q(inputs[0])[0], layer.to_k(named["context"])[0])
        )
        seen.append((query @ key.mT / query.shape[-1] ** 0.5).softmax(-1).mean(0))

    layers = [layer for name, layer in unet.middle_block.named_modules() if name.endswith("attn2")]
    hooks = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in layers]
    with torch.inference_mode():
        recorded, recording = recorder.record_attention(model, clip, PROMPT, PHRASES, "middle")
    try:
        samples = painted(case, recorded, encode(clip=clip), steps=1)
    finally:
        for hook in hooks:
            hook.remove()
    (maps,) = recording.record_of(samples).frames[0].maps
    assert len(seen) == len(layers)
    attention = torch.stack(seen).mean(0)
    for number, tokens in enumerate(([1, 2], [4, 5])):
        expected = attention[:, tokens].mean(-1)
        torch.testing.assert_close(maps.values[0, number].flatten().double(), expected, rtol=1e-4, atol=1e-7)


def test_learned_words_in_long_prompts_are_recorded(recorder: Any, case: FamilyCase) -> None:
    model, clip, _ = case.loaded
    case.save_word("seen-ball", case.word(2))
    text = LONG_PROMPT.replace("a ball", "embedding:seen-ball ball")
    recorded, recording = record(recorder, case, text, ("a cat", "seen-ball ball"))
    samples = painted(case, recorded, encode(text, clip), cfg=4.0)
    assert torch.equal(samples, painted(case, model, encode(text, clip), cfg=4.0))
    assert all((maps.values > 0).all() for maps in recording.record_of(samples).frames[0].maps)


@pytest.mark.parametrize(("text_g", "text_l"), [("a blue room", PROMPT), (PROMPT, "a blue room"), (PROMPT, PROMPT)])
def test_texts_of_their_own_for_the_two_encoders_are_recorded(
    recorder: Any, sdxl: FamilyCase, text_g: str, text_l: str
) -> None:
    """CONDITIONING of CLIPTextEncodeSDXL; the prompt is one of its texts, or both."""
    model, _, _ = sdxl.loaded
    positive = two_texts(sdxl, text_g, text_l, 128, 192)
    recorded, recording = record(recorder, sdxl)
    samples = painted(sdxl, recorded, positive)
    assert torch.equal(samples, painted(sdxl, model, positive))
    assert [frame.step for frame in recording.record_of(samples).frames] == [0, 1]


def test_another_prompt_is_refused_before_sampling(recorder: Any, case: FamilyCase) -> None:
    from compinv_core.basics.errors import UserError

    recorded, _ = record(recorder, case)
    with pytest.raises(UserError, match='positive prompt of the sampler is not "a cat and a ball"'):
        painted(case, recorded, encode("a cat and a bell", case.loaded[1]))
