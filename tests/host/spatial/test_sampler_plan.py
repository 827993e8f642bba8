"""The dry run finds the evaluations that begin a step, for every sampler of the host."""

from __future__ import annotations

import warnings

import pytest
import torch

from support import host
from support.sampling import encode, probe

host.start()

import comfy.samplers  # noqa: E402

STEPS = 6
OWN_LEVELS = ("dpm_adaptive", "dpm_fast")
COPIES_ITS_STATE = {"uni_pc", "uni_pc_bh2"}


@pytest.fixture(scope="module")
def running() -> dict:
    """The arguments that a sampler function gets from the host."""
    seen: dict = {}

    def remember(denoiser, x, sigmas, extra_args) -> None:
        seen.update(denoiser=denoiser, x=x.clone(), sigmas=sigmas, extra_args=extra_args, guider=denoiser.inner_model)
        seen["inner_model"] = denoiser.inner_model.inner_model

    model, _, _ = host.load("tiny")
    probe(model, encode(), remember)
    # The host takes the model from the guider when sampling ends; samplers look it up there.
    seen["guider"].inner_model = seen["inner_model"]
    return seen


def plan_of(name: str, running: dict, sigmas: torch.Tensor):
    from compinv_core.host.sampling.plan import plan_sampler

    sampler = comfy.samplers.sampler_object(name)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # torchsde complains about rounding
        return plan_sampler(
            sampler.sampler_function,
            running["denoiser"],
            running["x"],
            sigmas,
            running["extra_args"],
            sampler.extra_options,
        )


def schedule(running: dict) -> torch.Tensor:
    return comfy.samplers.calculate_sigmas(running["inner_model"].model_sampling, "normal", STEPS)


@pytest.mark.parametrize("name", [name for name in comfy.samplers.SAMPLER_NAMES if name not in OWN_LEVELS])
def test_every_step_begins_once_at_its_noise_level(name: str, running: dict) -> None:
    sigmas = schedule(running)
    plan = plan_of(name, running, sigmas)
    assert sorted(step for step, _ in plan.steps.values()) == list(range(STEPS))
    for evaluation, (step, sigma) in plan.steps.items():
        assert sigma == pytest.approx(float(sigmas[step]), rel=1e-3)
        assert plan.step_at(evaluation, sigma) == step
        assert plan.step_at(evaluation, sigma * 1.01) is None
    assert plan.edits_reach_state == (name not in COPIES_ITS_STATE)


@pytest.mark.parametrize("name", OWN_LEVELS)
def test_samplers_with_levels_of_their_own_are_guided_at_least_at_first(name: str, running: dict) -> None:
    plan = plan_of(name, running, schedule(running))
    assert plan.step_at(0, float(schedule(running)[0])) == 0
    assert plan.edits_reach_state


def test_the_dry_run_leaves_no_trace(running: dict) -> None:
    sigmas = schedule(running)
    before, state = sigmas.clone(), torch.random.get_rng_state()
    options = set(running["extra_args"]["model_options"])
    for name in ("uni_pc", "dpmpp_2m_cfg_pp", "ddpm", "lcm"):
        plan_of(name, running, sigmas)
    assert torch.equal(sigmas, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert set(running["extra_args"]["model_options"]) == options


def test_a_sampler_that_cannot_be_rehearsed_is_guided_at_its_first_step(running: dict, caplog) -> None:
    from compinv_core.host.sampling.plan import plan_sampler

    def touchy(model, x, sigmas, extra_args, callback, disable):
        raise RuntimeError("only for large pictures")

    plan = plan_sampler(touchy, running["denoiser"], running["x"], torch.tensor([2.0, 1.0, 0.0]), {}, {})
    assert plan.steps == {0: (0, 2.0)}
    assert "only for large pictures" in caplog.text
