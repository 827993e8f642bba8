"""Recording attention while the host's samplers run: the same picture, and the attention that was really there."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from support import host
from support.models.controlnet import random_controlnet
from support.sampling import PROMPT, encode, noise_like, sample

host.start()

import comfy.samplers  # noqa: E402

PHRASES = ("a cat", "a ball")
BLOCKS = ("middle_block", "output_blocks")
LONG_PROMPT = f"a cat {'sitting on a long bench in the warm evening light, ' * 9}and a ball"


@pytest.fixture(scope="module")
def core():
    import compinv_core.host.recording.recorder as module
    from compinv_core.boxes.layout import Layout
    from compinv_core.host.spatial.guidance import apply_layout_guidance
    from compinv_core.spatial.settings import GuidanceConfig

    module.apply_layout_guidance = apply_layout_guidance
    module.config = GuidanceConfig(strength=3000.0, threshold=0.0, max_iterations=1, guided_steps=2, loss="linear")
    module.layout = Layout(PHRASES, ((0, 0, 0.5, 1), (0.5, 0, 1, 1)), 64, 64)
    return module


def record(core, model=None, text: str = PROMPT, phrases: tuple = PHRASES) -> tuple:
    tiny, clip, _ = host.load("tiny")
    with torch.inference_mode():
        return core.record_attention(tiny if model is None else model, clip, text, phrases)


def guide(core, model=None, records: list | None = None) -> tuple:
    tiny, clip, _ = host.load("tiny")
    on_step = None if records is None else records.append
    with torch.inference_mode():
        return core.apply_layout_guidance(model or tiny, clip, PROMPT, core.layout, core.config, on_step)


def first_map(core, positive=None, text: str = PROMPT, model=None, **options) -> torch.Tensor:
    """The maps at the first step, where the latents do not yet depend on anything but the noise."""
    model, recording = record(core, model, text)
    samples = sample(model, encode(text) if positive is None else positive, steps=1, **options)
    return recording.record_of(samples).frames[0].maps[0].values


@contextmanager
def watched_attention(blocks: tuple[str, ...]):
    """Cross-attention computed from what the host gives to its attention layers: a list of (heads, N, T) per layer."""
    unet = host.load("tiny")[0].model.diffusion_model
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in blocks}

    def look(name):
        def hook(layer, inputs, named):
            query, key = layer.to_q(inputs[0])[0], layer.to_k(named["context"])[0]
            query, key = (
                value.reshape(len(value), layer.heads, -1).permute(1, 0, 2).double() for value in (query, key)
            )
            seen[name].append((query @ key.mT / query.shape[-1] ** 0.5).softmax(-1))

        return hook

    layers = [name for name, _ in unet.named_modules() if name.startswith(blocks) and name.endswith("attn2")]
    hooks = [
        unet.get_submodule(name).register_forward_pre_hook(
            look(next(block for block in blocks if name.startswith(block))), with_kwargs=True
        )
        for name in layers
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def expected_map(seen: dict[str, list[torch.Tensor]], evaluation: int, tokens: tuple[int, ...]) -> torch.Tensor:
    """Mean over blocks, heads and tokens of what `watched_attention` saw."""
    return sum(seen[name][evaluation].mean(0)[:, list(tokens)].mean(-1) for name in seen) / len(seen)


@pytest.mark.parametrize("sampler", ["heun", "uni_pc"])
def test_every_step_is_recorded_and_no_bit_changes(core, sampler: str) -> None:
    model, recording = record(core)
    noise = noise_like(2, 8, 12)
    samples = sample(model, encode(), noise, sampler, cfg=4.0, steps=3)
    assert torch.equal(samples, sample(host.load("tiny")[0], encode(), noise, sampler, cfg=4.0, steps=3))
    found = recording.record_of(samples)
    assert [frame.step for frame in found.frames] == [0, 1, 2]
    assert [frame.maps[0].values.shape for frame in found.frames] == [(2, 2, 8, 12)] * 3
    assert all(frame.unguided is None for frame in found.frames)
    assert (found.images, found.steps, found.seed) == (2, 3, 11)
    assert (found.latent_height, found.latent_width) == (8, 12)


@pytest.mark.parametrize("sampler", comfy.samplers.SAMPLER_NAMES)
def test_every_sampler_of_the_host_is_recorded(core, sampler: str) -> None:
    model, recording = record(core)
    samples = sample(model, encode(), sampler=sampler, steps=3)
    assert torch.equal(samples, sample(host.load("tiny")[0], encode(), sampler=sampler, steps=3))
    # Where adaptive steps begin is not known beforehand, but for the first.
    steps = [0] if sampler == "dpm_adaptive" else [0, 1, 2]
    assert [frame.step for frame in recording.record_of(samples).frames] == steps


def test_the_maps_are_the_attention_of_the_model(core) -> None:
    model, recording = record(core)
    with watched_attention(BLOCKS) as seen:
        samples = sample(model, encode(), steps=2)
    for index, frame in enumerate(recording.record_of(samples).frames):
        (maps,) = frame.maps
        assert maps.blocks == len(BLOCKS)
        for number, tokens in enumerate(((1, 2), (4, 5))):
            expected = expected_map(seen, index, tokens)
            torch.testing.assert_close(maps.values[0, number].flatten().double(), expected, rtol=1e-4, atol=1e-7)


def test_the_numbers_are_those_of_the_models_queries_and_keys(core) -> None:
    model, recording = record(core)
    with watched_attention(BLOCKS) as seen:
        samples = sample(model, encode(), steps=2)
    for index, frame in enumerate(recording.record_of(samples).frames):
        (maps,) = frame.maps
        # Means over heads, cells and blocks, for each token; "a cat and a ball" is tokens 1 to 5.
        mass, logarithm = (
            sum(change(seen[name][index]).mean((0, 1)) for name in seen) / len(seen)
            for change in (torch.abs, torch.log)
        )
        for number, tokens in enumerate(([1, 2], [4, 5])):
            expected = torch.stack([logarithm[tokens].mean() - logarithm[1:6].mean(), mass[tokens].sum()])
            found = torch.stack([maps.logit[0, number], maps.mass[0, number]]).double()
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_other_prompts_in_the_batch_do_not_matter(core) -> None:
    """Classifier-free guidance, with a negative prompt of more chunks, and a longer positive prompt in front."""
    import node_helpers

    plain = first_map(core)
    torch.testing.assert_close(first_map(core, cfg=4.0), plain, rtol=1e-4, atol=1e-7)
    (long, options), (own, _) = encode(LONG_PROMPT)[0], encode()[0]
    longer_neighbour = [*encode(), *node_helpers.conditioning_set_values(encode(LONG_PROMPT), {"strength": 0.5})]
    torch.testing.assert_close(first_map(core, longer_neighbour), plain, rtol=1e-4, atol=1e-7)
    with watched_attention(BLOCKS) as seen:
        behind = first_map(core, [[torch.cat([long, own], dim=1), options]])
    chunks = long.shape[1]
    assert chunks == 154
    expected = expected_map(seen, 0, (chunks + 1, chunks + 2))
    torch.testing.assert_close(behind[0, 0].flatten().double(), expected, rtol=1e-4, atol=1e-7)


def test_a_second_evaluation_of_the_prompt_is_not_recorded(core) -> None:
    """Perturbed-attention guidance evaluates the same conditioning again, with other features."""
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    perturbed = PerturbedAttentionGuidance.execute(host.load("tiny")[0], 3.0).args[0]
    model, recording = record(core, perturbed)
    samples = sample(model, encode(), steps=2)
    assert torch.equal(samples, sample(perturbed, encode(), steps=2))
    torch.testing.assert_close(
        recording.record_of(samples).frames[0].maps[0].values, first_map(core), rtol=1e-4, atol=1e-7
    )


def test_embeddings_and_long_prompts(core) -> None:
    embeddings = host.start() / "models" / "embeddings"
    values = torch.randn(2, 768, generator=torch.Generator().manual_seed(1)) * 0.0137
    save_file({"seen": values}, str(embeddings / "seen.safetensors"))
    text = LONG_PROMPT.replace("a ball", "embedding:seen ball")
    model, recording = record(core, text=text, phrases=("a cat", "seen ball"))
    samples = sample(model, encode(text), cfg=4.0, steps=2)
    assert torch.equal(samples, sample(host.load("tiny")[0], encode(text), cfg=4.0, steps=2))
    maps = recording.record_of(samples).frames[0].maps[0].values
    assert maps.shape == (1, 2, 8, 8)
    assert (maps > 0).all()


def test_weight_patches_and_controlnet_count_and_stay(core) -> None:
    import node_helpers

    patched = host.load("tiny")[0].clone()
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    weight = patched.model.diffusion_model.middle_block[1].transformer_blocks[0].attn2.to_k.weight
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)) * 0.2
    patched.add_patches({key: ("diff", (noise,))})
    positive = node_helpers.conditioning_set_values(encode(), {"control": random_controlnet()})
    model, recording = record(core, patched)
    samples = sample(model, positive, steps=2)
    assert torch.equal(samples, sample(patched, positive, steps=2))
    with_both = recording.record_of(samples).frames[0].maps[0].values
    with_patch = first_map(core, model=patched)
    assert not torch.allclose(with_both, with_patch, rtol=1e-3)
    assert not torch.allclose(with_patch, first_map(core), rtol=1e-3)


@pytest.mark.parametrize("sampler", ["euler", "uni_pc", "heunpp2", "dpmpp_2m_sde", "sa_solver_pece", "deis"])
def test_guided_steps_are_recorded_before_and_after(core, sampler: str) -> None:
    from compinv_core.recording.measures import attention_curves

    losses: list = []
    guided, positive = guide(core, records=losses)
    expected = sample(guided, positive, sampler=sampler, steps=3)
    found = []
    for first in ("guidance", "recording"):
        if first == "guidance":
            model, recording = record(core, guided)
        else:
            recorded, recording = record(core)
            model, positive = guide(core, recorded)
        samples = sample(model, positive, sampler=sampler, steps=3)
        assert torch.equal(samples, expected), first
        found.append(recording.record_of(samples))
    one, other = found
    assert one.boxes == other.boxes == core.layout.boxes
    assert [frame.unguided is not None for frame in one.frames] == [True, True, False]
    for mine, theirs in zip(one.frames, other.frames, strict=True):
        assert torch.equal(mine.maps[0].values, theirs.maps[0].values)
    curves = attention_curves(one, one.boxes)
    assert curves.guided_steps == (0, 1)
    assert curves.logit.isfinite().all() and curves.logit_unguided[:2].isfinite().all()
    assert not torch.equal(curves.logit[:2], curves.logit_unguided[:2])
    # The losses that guidance itself saw before its first update are those of the maps before guidance.
    before = 1 - curves.mass_unguided[:2, 0].mean(-1)
    torch.testing.assert_close(before, torch.tensor([losses[i].losses[0][0] for i in (0, 1)]), rtol=1e-4, atol=1e-5)
    assert (curves.mass[:2, 0].mean(-1) > curves.mass_unguided[:2, 0].mean(-1)).all()


def test_runs_of_one_model_are_told_apart_and_nothing_stays_behind(core) -> None:
    import comfy.model_management as management

    tiny, _, _ = host.load("tiny")
    wrappers = {kind: dict(keyed) for kind, keyed in tiny.wrappers.items()}
    model, recording = record(core)
    results = [sample(model, encode(), noise_like(seed=seed), steps=2) for seed in (1, 2)]
    one, other = (recording.record_of(samples).frames[1].maps[0].values for samples in results)
    assert not torch.equal(one, other)

    def stop(*args) -> None:
        management.interrupt_current_processing(True)
        management.throw_exception_if_processing_interrupted()

    with pytest.raises(management.InterruptProcessingException):
        sample(model, encode(), noise_like(seed=3), callback=stop)
    assert len(recording._runs) == 2
    assert {kind: dict(keyed) for kind, keyed in tiny.wrappers.items()} == wrappers


def test_older_runs_make_room_while_a_new_one_is_recorded(core) -> None:
    model, recording = record(core)
    first = sample(model, encode(), noise_like(seed=1), steps=2)
    object.__setattr__(recording, "limit", recording.size_in_bytes * 5 // 4)
    held = []
    sample(model, encode(), noise_like(seed=2), steps=2, callback=lambda *args: held.append(len(recording._runs)))
    assert held == [0, 0] and len(recording._runs) == 1
    assert not torch.equal(recording._runs[0][0], first)


def test_recording_a_recorded_model_starts_anew(core) -> None:
    first, old = record(core)
    again, new = record(core, first, phrases=("a cat",))
    samples = sample(again, encode(), steps=1)
    assert new.record_of(samples).phrases == ("a cat",)
    assert not old._runs


def test_a_prompt_in_use_at_some_steps_only(core) -> None:
    import node_helpers

    late = node_helpers.conditioning_set_values(encode(), {"start_percent": 0.6, "end_percent": 1.0})
    early = node_helpers.conditioning_set_values(encode("a dog"), {"start_percent": 0.0, "end_percent": 0.6})
    model, recording = record(core)
    found = recording.record_of(sample(model, [*early, *late]))
    assert 0 < len(found.frames) < 4
    assert found.frames[-1].step == 3


def test_another_prompt_is_refused_before_sampling(core) -> None:
    import node_helpers

    from compinv_core.basics.errors import UserError

    model, recording = record(core)
    calls: list = []
    with pytest.raises(UserError, match='positive prompt of the sampler is not "a cat and a ball"'):
        sample(model, encode("a cat and a bell"), callback=lambda *args: calls.append(args))
    area = node_helpers.conditioning_set_values(encode(), {"area": (8, 4, 0, 0), "strength": 1.0})
    with pytest.raises(UserError, match="limited to an area of the picture"):
        sample(model, area, callback=lambda *args: calls.append(args))
    assert not calls and not recording._runs


def test_bad_inputs_of_the_node(core) -> None:
    from compinv_core.basics.errors import UserError

    with pytest.raises(UserError, match=r'Record Attention: the phrase "a dog" is not in the prompt'):
        record(core, phrases=("a cat", "a dog"))
    with pytest.raises(UserError, match="given twice"):
        record(core, phrases=("a cat", "A  cat"))
    with pytest.raises(UserError, match="there is no phrase; write parts of the prompt into `phrases`"):
        record(core, phrases=())
