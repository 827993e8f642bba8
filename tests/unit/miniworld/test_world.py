"""The miniature world's renderer, storage and optimiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from miniworld.networks.checkpoint import dequantise, quantise
from miniworld.networks.diffusion import LATENT_SPREAD, LatentScale, alphas_cumprod, loss_weights
from miniworld.networks.unet import UNet, host_state_dict
from miniworld.training.fitting import Schedule, fit
from miniworld.training.optimiser import Muon, orthogonalise
from miniworld.world.backgrounds import BACKGROUNDS, paint_background
from miniworld.world.drawing import NOUNS, Pen
from miniworld.world.instances import CHOOSING, INSTANCES, REPORTING, photos
from miniworld.world.scenes import SIDE, render_scene


def test_equal_generators_give_equal_scenes():
    first, second = (render_scene(np.random.default_rng(3)) for _ in range(2))
    assert first.caption == second.caption
    assert np.array_equal(first.image, second.image)


@pytest.mark.parametrize("noun", NOUNS)
def test_mask_lies_in_its_box_and_marks_the_object(noun):
    scene = render_scene(np.random.default_rng(11), [noun])
    (thing,) = scene.objects
    rows, columns = np.nonzero(thing.mask > 0.5)
    x0, y0, x1, y1 = (v * SIDE for v in thing.box)
    margin = 0.13 * (x1 - x0)
    assert x0 - margin <= columns.min() and columns.max() <= x1 + margin
    assert y0 - margin <= rows.min() and rows.max() <= y1 + margin
    assert len(rows) > 0.1 * (x1 - x0) * (y1 - y0)


def test_captions_name_both_nouns_or_their_category():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scene = render_scene(rng, ["moon", "star"])
        assert {"moon", "star"} <= set(scene.caption.split())


def test_usual_height_shows_in_the_layout():
    rng = np.random.default_rng(1)
    scenes = [render_scene(rng, ["moon", "boat"]) for _ in range(40)]
    moon, boat = (
        np.mean([(o.box[1] + o.box[3]) / 2 for s in scenes for o in s.objects if o.noun == n]) for n in ("moon", "boat")
    )
    assert moon < 0.35 and boat > 0.62


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_every_background_fills_the_canvas(name):
    image = np.asarray(paint_background(64, name, (200, 30, 30), (30, 30, 200)))
    assert image.shape == (64, 64, 3)
    assert image.any(-1).all()


def test_pattern_repaints_only_the_body():
    pen = Pen(90, (10, 200, 30))
    NOUNS["ball"](pen)
    before = np.asarray(pen.layer).copy()
    pen.paint_pattern("striped", (250, 0, 250))
    after = np.asarray(pen.layer)
    changed = (before != after).any(-1)
    assert changed.any() and (before[changed][:, :3] == (10, 200, 30)).all()
    assert (after[changed][:, :3] == (250, 0, 250)).all()


def test_own_things_are_always_photographed_alike():
    assert len(CHOOSING) >= 3 and len(REPORTING) >= 3 and len(INSTANCES) == len(CHOOSING) + len(REPORTING)
    for instance in INSTANCES.values():
        pictures, masks = photos(instance)
        assert pictures.shape == (5, SIDE, SIDE, 3) and masks.shape == (5, SIDE, SIDE)
        assert np.array_equal(pictures, photos(instance)[0])
        assert 0.05 < masks.mean() < 0.6


def test_storage_rounds_to_half_a_step_of_each_row():
    weights = {"large": torch.randn(64, 64, 3, 3), "small": torch.randn(64)}
    stored = quantise(weights)
    assert stored["large"].dtype == torch.int8 and stored["small"].dtype == torch.float16
    restored = dequantise(stored)
    step = weights["large"].flatten(1).abs().amax(1) / 127
    error = (restored["large"] - weights["large"]).flatten(1).abs().amax(1)
    assert (error <= 0.52 * step).all()
    again = quantise(restored)
    assert all(torch.equal(again[name], stored[name]) for name in stored)


def test_schedule_is_stable_diffusion_1():
    a = alphas_cumprod()
    assert a[0] == pytest.approx(1 - 0.00085, rel=1e-6)
    assert float(((1 - a[-1]) / a[-1]).sqrt()) == pytest.approx(14.6146, rel=1e-4)
    weights = loss_weights()
    assert weights[-1] == 1 and weights[0] < 0.01


def test_latent_scale_gives_the_wanted_spread():
    scaled = LatentScale.of(latents := 3 + 0.7 * torch.randn(50, 4, 8, 8))(latents)
    assert float(scaled.mean()) == pytest.approx(0, abs=1e-5)
    assert float(scaled.std()) == pytest.approx(LATENT_SPREAD, rel=1e-5)


def test_newton_schulz_evens_out_singular_values():
    matrices = torch.randn(3, 40, 60, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.5 and values.max() < 1.3
    tall = orthogonalise(matrices.transpose(1, 2))
    assert torch.allclose(tall, orthogonalise(matrices).transpose(1, 2), atol=1e-5)


def test_schedule_rises_stays_and_falls():
    schedule = Schedule(steps=100, decay_from=60, warmup=10)
    assert schedule(0) == pytest.approx(0.1) and schedule(30) == 1 and schedule(80) == 0.5
    assert schedule(99) == pytest.approx(1 / 40)


def test_interrupted_training_ends_in_the_same_bits(tmp_path):
    def run(name: str, stop_after: int | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 3))
        calls = 0

        def loss(generator: torch.Generator) -> torch.Tensor:
            nonlocal calls
            calls += 1
            if stop_after is not None and calls > stop_after:
                raise KeyboardInterrupt
            return model(torch.randn(8, 64, generator=generator)).square().mean()

        return fit(model, Muon(model, 1e-2), loss, Schedule(12, 6, 2), 1e-2, tmp_path / f"{name}.pt", 5, save_every=4)

    whole = run("whole", None)
    with pytest.raises(KeyboardInterrupt):
        run("broken", 6)
    resumed = run("broken", None)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_dense_tensors_compute_what_the_structured_ones_do():
    model = UNet()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05)
    dense = host_state_dict(model.state_dict())
    block = model.input_blocks[3][0]
    x = torch.randn(1, 320, 8, 8)
    name = "input_blocks.3.0.in_layers.2"
    expanded = torch.nn.functional.conv2d(x, dense[f"{name}.weight"], dense[f"{name}.bias"], padding=1)
    assert torch.allclose(block.in_layers[2](x), expanded, atol=1e-5)
    assert dense["output_blocks.0.1.transformer_blocks.0.ff.net.0.proj.weight"].shape == (2560, 320)
    assert dense["time_embed.2.weight"].shape == (1280, 1280)
