"""Layout guidance while the host's samplers run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from support import host
from support.sampling import PROMPT, encode, noise_like, sample

SAMPLERS = ("euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_sde", "dpm_2_ancestral", "ddim", "uni_pc", "lcm")


@pytest.fixture(scope="module")
def core():
    host.start()
    import compinv_core.host.spatial.guidance as module
    from compinv_core.boxes.layout import Layout
    from compinv_core.spatial.settings import GuidanceConfig

    module.strong = GuidanceConfig(strength=3000.0, threshold=0.1, max_iterations=2, guided_steps=3)
    module.watching = GuidanceConfig(threshold=1.0, max_iterations=1)
    module.two_boxes = Layout(("a cat", "a ball"), ((0, 0, 0.5, 1), (0.5, 0, 1, 1)), 64, 64)
    return module


def guide(core, config=None, layout=None, text: str = PROMPT, records: list | None = None, model=None) -> tuple:
    tiny, clip, _ = host.load("tiny")
    with torch.inference_mode():
        return core.apply_layout_guidance(
            tiny if model is None else model,
            clip,
            text,
            core.two_boxes if layout is None else layout,
            core.strong if config is None else config,
            None if records is None else records.append,
        )


@pytest.fixture(scope="module")
def unguided() -> torch.Tensor:
    return sample(host.load("tiny")[0], encode())


@pytest.mark.filterwarnings("ignore:Should have tb")
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_guidance_lowers_the_loss_with_every_sampler(core, sampler: str) -> None:
    watched, guided = [], []
    plain = sample(*guide(core, core.watching, records=watched), sampler=sampler)
    samples = sample(*guide(core, records=guided), sampler=sampler)
    assert [record.step for record in guided] == [0, 1, 2]
    before = [record.losses[0][0] for record in watched]
    after = [record.losses[0][0] for record in guided]
    assert before[0] == after[0]
    assert all(b - a > 0.02 for b, a in zip(before[1:3], after[1:], strict=True)), (before, after)
    assert samples.isfinite().all()
    assert not torch.equal(samples, plain)


def test_watching_changes_no_bit(core, unguided: torch.Tensor) -> None:
    assert torch.equal(sample(*guide(core, core.watching)), unguided)


@pytest.mark.parametrize("off", [{"strength": 0.0}, {"guided_steps": 0}, {"max_iterations": 0}, {"end_percent": 0.0}])
def test_guidance_that_is_off_changes_no_bit(core, unguided: torch.Tensor, off: dict) -> None:
    assert torch.equal(sample(*guide(core, replace(core.strong, **off))), unguided)


def test_an_empty_layout_changes_no_bit(core, unguided: torch.Tensor) -> None:
    from compinv_core.boxes.layout import Layout

    assert torch.equal(sample(*guide(core, layout=Layout((), (), 64, 64))), unguided)


def test_a_schedule_past_its_guided_part_changes_no_bit(core) -> None:
    """The second of two chained samplers, which starts where guidance has ended."""
    model, positive = guide(core, replace(core.strong, end_percent=0.5))
    half_way = noise_like(seed=8)
    options = dict(latent_image=half_way, disable_noise=True, start_step=2, force_full_denoise=True)
    second = sample(model, positive, torch.zeros_like(half_way), **options)
    assert torch.equal(second, sample(host.load("tiny")[0], encode(), torch.zeros_like(half_way), **options))
    assert not torch.equal(sample(model, positive), sample(host.load("tiny")[0], encode()))


def test_a_schedule_without_steps_returns_the_latent(core) -> None:
    latent = noise_like(seed=8)
    options = dict(latent_image=latent, start_step=4, last_step=4)
    assert torch.equal(sample(*guide(core), **options), sample(host.load("tiny")[0], encode(), **options))


def test_a_single_noise_level_returns_what_the_sampler_would(core) -> None:
    import comfy.sample

    results = []
    for model, positive in (guide(core), (host.load("tiny")[0], encode())):
        with torch.inference_mode():
            results.append(
                comfy.sample.sample_custom(
                    model, noise_like(), 1.0, comfy.samplers.sampler_object("euler"), torch.tensor([4.0]), positive,
                    encode(""), noise_like(seed=8), disable_pbar=True, seed=11,
                )
            )  # fmt: skip
    assert torch.equal(*results)


def test_batch_equals_single_images(core) -> None:
    noise = noise_like(3, 8, 12)
    records: list = []
    together = sample(*guide(core, records=records), noise)
    assert len(records[0].losses[0]) == len(records[0].updates) == 3
    for index in range(3):
        alone = sample(*guide(core), noise[index : index + 1])
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-3, atol=1e-2)


def test_the_model_given_is_left_alone(core, unguided: torch.Tensor) -> None:
    tiny, _, _ = host.load("tiny")
    wrappers = {kind: dict(keyed) for kind, keyed in tiny.wrappers.items()}
    guided = sample(*guide(core))
    assert not torch.equal(guided, unguided)
    assert {kind: dict(keyed) for kind, keyed in tiny.wrappers.items()} == wrappers
    assert torch.equal(sample(tiny, encode()), unguided)


def test_guiding_a_guided_model_replaces_the_settings(core, unguided: torch.Tensor) -> None:
    guided, _ = guide(core)
    again, positive = guide(core, core.watching, model=guided)
    assert torch.equal(sample(again, positive), unguided)


def test_forgetting_the_positive_output_is_said(core, unguided: torch.Tensor, caplog) -> None:
    model, _ = guide(core)
    assert torch.equal(sample(model, encode()), unguided)
    assert "connect the node's `positive` output" in caplog.text


def test_stop_ends_within_an_iteration_and_leaves_nothing_behind(core, unguided: torch.Tensor) -> None:
    import comfy.model_management as management

    tiny, clip, _ = host.load("tiny")
    seen = []

    def stop(record) -> None:
        seen.append(record.step)
        management.interrupt_current_processing(True)

    model, positive = core.apply_layout_guidance(tiny, clip, PROMPT, core.two_boxes, core.strong, stop)
    with pytest.raises(management.InterruptProcessingException):
        sample(model, positive)
    assert seen == [0]
    assert torch.equal(sample(tiny, encode()), unguided)


def test_inpainting_keeps_what_is_outside_the_mask(core) -> None:
    original = noise_like(seed=9)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :5] = 1.0
    samples = sample(*guide(core), latent_image=original, noise_mask=mask)
    plain = sample(host.load("tiny")[0], encode(), latent_image=original, noise_mask=mask)
    torch.testing.assert_close(samples[..., 5:], original[..., 5:], rtol=1e-4, atol=1e-4)
    assert (samples - plain)[..., :5].abs().max() > 1e-2


def test_classifier_free_guidance_and_a_long_prompt(core) -> None:
    text = f"a cat {'sitting on a long bench in the warm evening light, ' * 9}and a ball"
    records: list = []
    samples = sample(*guide(core, text=text, records=records), cfg=7.0)
    assert samples.isfinite().all()
    assert records[1].losses[0][0] < records[0].losses[0][0]


def test_uni_pc_ends_where_a_split_schedule_goes_on(core) -> None:
    """UniPC works on a copy of the latent; a run that stops half-way still returns the guided latent."""
    half = sample(*guide(core), sampler="uni_pc", steps=8, last_step=4)
    plain = sample(host.load("tiny")[0], encode(), sampler="uni_pc", steps=8, last_step=4)
    assert (half - plain).abs().mean() > 1e-2


def test_official_preset_reads_the_placeholder_only(core) -> None:
    embeddings = host.start() / "models" / "embeddings"
    values = torch.randn(2, 768, generator=torch.Generator().manual_seed(1)) * 0.0137
    save_file({"own": values}, str(embeddings / "own.safetensors"))
    from compinv_core.boxes.layout import Layout

    layout = Layout(("own cat", "a ball"), core.two_boxes.boxes, 64, 64)
    text = "embedding:own cat and a ball"
    config = core.strong.with_preset("official_2024")
    records: list = []
    model, positive = guide(core, config, layout, text, records)
    regions = positive[0][1][core.REGIONS_KEY]
    assert [region.tokens for region in regions] == [(1, 2), (5, 6)]
    official = sample(model, positive)
    model, positive = guide(core, core.strong, layout, text)
    assert [region.tokens for region in positive[0][1][core.REGIONS_KEY]] == [(1, 2, 3), (5, 6)]
    assert not torch.equal(sample(model, positive), official)
    assert records[0].updates == (2,)


def test_official_preset_never_guides_again_once_below_the_threshold(core) -> None:
    # Above every loss of the random model but below 1, the start value is the only reason to evaluate at all.
    config = replace(core.strong, threshold=0.9, guided_steps=4).with_preset("official_2024")
    records: list = []
    sample(*guide(core, config, records=records))
    assert [len(record.losses) for record in records] == [1, 0, 0, 0]
    assert records[0].updates == (1,)


def test_unsupported_models_are_refused(core) -> None:
    import comfy.sd

    from compinv_core.basics.errors import UserError
    from support import checkpoints

    _, clip, _ = host.load("tiny")
    other, *_ = comfy.sd.load_checkpoint_guess_config(
        str(checkpoints.build("refiner")), output_vae=False, output_clip=False
    )
    with pytest.raises(UserError, match="connect `model` to a checkpoint of Stable Diffusion 1") as caught:
        core.apply_layout_guidance(other, clip, PROMPT, core.two_boxes, core.strong)
    assert str(caught.value).startswith("Apply Layout Guidance: the model is ")


def test_a_sampler_that_cannot_be_guided_is_refused(core) -> None:
    import comfy.sample
    import comfy.samplers

    from compinv_core.basics.errors import UserError

    class Foreign(comfy.samplers.Sampler):
        pass

    model, positive = guide(core)
    noise = noise_like()
    refusal = "Apply Layout Guidance cannot work with the sampler Foreign"
    with torch.inference_mode(), pytest.raises(UserError, match=refusal):
        comfy.sample.sample_custom(
            model, noise, 1.0, Foreign(), torch.tensor([2.0, 0.0]), positive, encode(""), torch.zeros_like(noise)
        )
