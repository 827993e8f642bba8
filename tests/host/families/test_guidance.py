"""Layout guidance on SDXL and Stable Diffusion 2 while the host's samplers run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from support import host
from support.models.families import FAMILIES, FamilyCase, two_texts
from support.sampling import PROMPT, encode, noise_like, sample

pytestmark = pytest.mark.usefixtures("one_thread")
PHRASES = ("a cat", "a ball")
BOXES = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))
LONG_PROMPT = f"a cat {'sitting on a long bench in the warm evening light, ' * 9}and a ball"
# Latent cells: the deepest attention is at a quarter of them (SDXL), or an eighth (Stable Diffusion 2).
SIZE = (16, 24)


@pytest.fixture(scope="module")
def guidance() -> Any:
    host.start()
    import compinv_core.host.spatial.guidance as module
    from compinv_core.boxes.layout import Layout
    from compinv_core.spatial.settings import GuidanceConfig

    module.strong = GuidanceConfig(strength=3000.0, threshold=0.1, max_iterations=2, guided_steps=2)
    # Small enough that each update lowers the loss by itself, on the worst conditioned of the random models, too.
    module.gentle = replace(module.strong, strength=100.0)
    module.watching = GuidanceConfig(threshold=1.0, max_iterations=1)
    module.two_boxes = Layout(PHRASES, BOXES, SIZE[1] * 8, SIZE[0] * 8)
    return module


def guide(guidance: Any, case: FamilyCase, config: Any = None, records: list | None = None, **options: Any) -> tuple:
    model, clip, _ = case.loaded
    with torch.inference_mode():
        return guidance.apply_layout_guidance(
            options.get("model", model),
            clip,
            options.get("text", PROMPT),
            options.get("layout", guidance.two_boxes),
            config or guidance.strong,
            None if records is None else records.append,
        )


def painted(case: FamilyCase, model: Any, positive: list, **options: Any) -> torch.Tensor:
    noise = options.pop("noise", None)
    noise = noise_like(1, *SIZE) if noise is None else noise
    return sample(model, positive, noise, clip=case.loaded[1], **{"steps": 3, **options})


def location_losses(records: list) -> list[float]:
    return [record.losses[0][0] for record in records]


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "uni_pc"])
def test_guidance_lowers_the_loss(guidance: Any, case: FamilyCase, sampler: str) -> None:
    watched: list = []
    guided: list = []
    plain = painted(case, *guide(guidance, case, guidance.watching, watched), sampler=sampler)
    samples = painted(case, *guide(guidance, case, records=guided), sampler=sampler)
    before, after = location_losses(watched), location_losses(guided)
    assert before[0] == after[0] and before[1] - after[1] > 0.02, (before, after)
    assert samples.isfinite().all() and not torch.equal(samples, plain)


@pytest.mark.parametrize("kind", ["sdxl_v", "sd2_v"])
def test_guidance_lowers_the_loss_of_models_that_predict_velocity(guidance: Any, kind: str) -> None:
    case, model = FAMILIES[kind.removesuffix("_v")], host.load_anew(kind)[0]
    watched: list = []
    guided: list = []
    painted(case, *guide(guidance, case, guidance.watching, watched, model=model), cfg=4.0)
    samples = painted(case, *guide(guidance, case, records=guided, model=model), cfg=4.0)
    before, after = location_losses(watched), location_losses(guided)
    assert before[0] == after[0] and before[1] - after[1] > 0.02, (before, after)
    assert samples.isfinite().all()


@pytest.mark.parametrize("off", [{"strength": 0.0}, {"guided_steps": 0}, {"end_percent": 0.0}])
def test_guidance_that_is_off_changes_no_bit(guidance: Any, case: FamilyCase, off: dict[str, Any]) -> None:
    model, clip, _ = case.loaded
    unguided = painted(case, model, encode(clip=clip), cfg=4.0)
    assert torch.equal(painted(case, *guide(guidance, case, replace(guidance.strong, **off)), cfg=4.0), unguided)
    assert torch.equal(painted(case, *guide(guidance, case, guidance.watching), cfg=4.0), unguided)


def test_the_model_given_is_left_alone(guidance: Any, case: FamilyCase) -> None:
    model, clip, _ = case.loaded
    unguided = painted(case, model, encode(clip=clip))
    assert not torch.equal(painted(case, *guide(guidance, case)), unguided)
    assert torch.equal(painted(case, model, encode(clip=clip)), unguided)


@pytest.mark.parametrize("blocks", ["middle", "first up", "all up"])
def test_every_choice_of_blocks_guides(guidance: Any, case: FamilyCase, blocks: str) -> None:
    records: list = []
    config = replace(guidance.gentle, blocks=blocks)
    samples = painted(case, *guide(guidance, case, config, records), steps=2)
    assert samples.isfinite().all() and records[0].updates[0] > 0
    first, second = records[0].losses[:2]
    assert second[0] < first[0]


def test_long_prompts_are_guided(guidance: Any, case: FamilyCase) -> None:
    records: list = []
    model, positive = guide(guidance, case, guidance.gentle, records, text=LONG_PROMPT)
    cat, ball = (region.tokens for region in positive[0][1][guidance.REGIONS_KEY])
    assert cat == (1, 2) and min(ball) > 77 and positive[0][0].shape[1] == 154
    assert painted(case, model, positive, cfg=7.0).isfinite().all()
    first, second = records[0].losses[:2]
    assert second[0] < first[0]


def test_pictures_of_a_batch_are_guided_each_for_itself(guidance: Any, case: FamilyCase) -> None:
    noise = noise_like(2, *SIZE)
    records: list = []
    together = painted(case, *guide(guidance, case, records=records), noise=noise)
    assert len(records[0].losses[0]) == len(records[0].updates) == 2
    for index in range(2):
        alone = painted(case, *guide(guidance, case), noise=noise[index : index + 1])
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-3, atol=1e-2)


def test_a_learned_word_is_guided(guidance: Any, case: FamilyCase) -> None:
    from compinv_core.boxes.layout import Layout

    case.save_word("guided-cat", case.word(2))
    layout = Layout(("guided-cat cat", "a ball"), BOXES, SIZE[1] * 8, SIZE[0] * 8)
    records: list = []
    model, positive = guide(
        guidance, case, guidance.gentle, records, text="embedding:guided-cat cat and a ball", layout=layout
    )
    assert [region.tokens for region in positive[0][1][guidance.REGIONS_KEY]] == [(1, 2, 3), (5, 6)]
    assert painted(case, model, positive).isfinite().all()
    first, second = records[0].losses[:2]
    assert second[0] < first[0]


@pytest.mark.parametrize(("text_g", "text_l"), [("a blue room", PROMPT), (PROMPT, "a blue room"), (PROMPT, PROMPT)])
def test_texts_of_their_own_for_the_two_encoders_are_guided(
    guidance: Any, sdxl: FamilyCase, text_g: str, text_l: str
) -> None:
    """CONDITIONING of CLIPTextEncodeSDXL; the phrases are in one of its texts, or in both."""
    model, clip, _ = sdxl.loaded
    conditioning = two_texts(sdxl, text_g, text_l, 128, 192)
    records: list = []
    with torch.inference_mode():
        guided, positive = guidance.apply_layout_guidance(
            model, clip, PROMPT, guidance.two_boxes, guidance.gentle, records.append, conditioning=conditioning
        )
    assert torch.equal(positive[0][0], conditioning[0][0]) and positive[0][1]["width"] == 192
    assert painted(sdxl, guided, positive).isfinite().all()
    first, second = records[0].losses[:2]
    assert second[0] < first[0]
