"""The miniature world's renderer, storage and optimiser."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from miniworld.networks.checkpoint import dequantise, quantise
from miniworld.networks.diffusion import LATENT_SPREAD, LatentScale, alphas_cumprod, loss_weights
from miniworld.networks.unet import UNet, host_state_dict
from miniworld.training.fitting import Schedule, fit
from miniworld.training.optimiser import Muon, orthogonalise
from miniworld.training.plan import Clock
from miniworld.world.backgrounds import BACKGROUNDS, paint_background
from miniworld.world.captions import relation
from miniworld.world.dataset import training_scenes
from miniworld.world.drawing import NOUNS, Pen
from miniworld.world.instances import CHOOSING, INSTANCES, REPORTING, photos, too_like_own
from miniworld.world.looks import MARKS, Look, drawn
from miniworld.world.named import named_things
from miniworld.world.placing import SIDE, SceneObject
from miniworld.world.scenes import render_at_home, render_portraits, render_scene
from miniworld.world.words import NAMES, WORDS


def test_equal_generators_give_equal_scenes():
    first, second = (render_scene(np.random.default_rng(3)) for _ in range(2))
    assert first.caption == second.caption
    assert np.array_equal(first.image, second.image)


@pytest.mark.parametrize("noun", NOUNS)
def test_mask_lies_in_its_box_and_marks_the_object(noun):
    scene = render_scene(np.random.default_rng(11), [noun], lambda noun, tones: Look(noun, (200, 30, 30)))
    (thing,) = scene.objects
    rows, columns = np.nonzero(thing.mask > 0.5)
    x0, y0, x1, y1 = (v * SIDE for v in thing.box)
    margin = 0.13 * (x1 - x0)
    assert x0 - margin <= columns.min() and columns.max() <= x1 + margin
    assert y0 - margin <= rows.min() and rows.max() <= y1 + margin
    assert len(rows) > 0.1 * (x1 - x0) * (y1 - y0)


def test_captions_name_all_that_is_there_in_any_order():
    rng, orders = np.random.default_rng(0), set()
    for _ in range(60):
        words = render_scene(rng, ["moon", "star"]).caption.split()
        orders.add(words.index("moon") < words.index("star"))
        three = render_scene(rng, ["moon", "star", "star"]).caption
        assert three.split().count("star") == 2 and re.search(r"(,|and) .*and", three)
    assert orders == {True, False}


def test_every_word_of_a_caption_has_an_embedding():
    scenes = training_scenes(np.random.default_rng(1))
    captions = [scene.caption for _ in range(150) for scene in next(scenes)[0]]
    words = {word for caption in captions for word in caption.split()}
    assert words <= set(WORDS) | set(NAMES)
    assert {"left", "right", "above", "below", "wearing", ",", "with"} <= words


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ((0.2, 0.5), (0.8, 0.5), "left of"),
        ((0.8, 0.5), (0.2, 0.6), "right of"),
        ((0.5, 0.2), (0.5, 0.8), "above"),
        ((0.5, 0.8), (0.4, 0.2), "below"),
        ((0.2, 0.2), (0.8, 0.8), ""),
        ((0.5, 0.5), (0.6, 0.5), ""),
    ],
)
def test_relations(one, other, said):
    look, mask = Look("ball", (0, 0, 0)), np.zeros((SIDE, SIDE), np.float32)
    assert relation(SceneObject(look, *one, 0.3, mask), SceneObject(look, *other, 0.3, mask)) == said


def test_usual_height_shows_in_the_layout():
    rng = np.random.default_rng(1)
    scenes = [render_scene(rng, ["moon", "boat"]) for _ in range(60)]
    moon, boat = (np.mean([o.y for s in scenes for o in s.objects if o.noun == n]) for n in ("moon", "boat"))
    assert moon < boat - 0.08


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_is_painted_in_its_colour(mark):
    plain, marked = (
        np.asarray(drawn(Look("cat", (10, 200, 30), mark=m, third=(250, 0, 250)), 90).layer) for m in ("", mark)
    )
    changed = (plain != marked).any(-1)
    assert 30 < changed.sum() < 0.4 * (marked[..., 3] > 0).sum()
    assert (marked[changed][:, :3] == (250, 0, 250)).all(1).mean() > 0.5


def test_portraits_show_one_thing_again_and_again():
    look = next(iter(named_things().values()))[0].look
    scenes = render_portraits(look, np.random.default_rng(0), 5)
    assert {scene.objects[0].noun for scene in scenes} == {look.noun}
    assert len({scene.objects[0].x for scene in scenes}) == 5


def test_things_with_names_are_at_home_on_their_own_background():
    things = named_things()
    assert sum(map(len, things.values())) == len(NAMES) and {len(each) for each in things.values()} == {24}
    thing = things["cat"][0]
    absent = Look("boat", (200, 30, 30), words=("red", "", ""))
    rng = np.random.default_rng(0)
    scenes = [render_at_home(thing.look, thing.home, rng, absent) for _ in range(20)]
    assert {scene.background for scene in scenes} == {thing.home.name}
    assert all(len(scene.objects) == 1 and "boat" in scene.caption.split() for scene in scenes)
    corners = np.stack([scene.image[:3, :3].mean((0, 1)) for scene in scenes])
    assert np.abs(corners - np.array(thing.home.first)).max() < 80
    assert any(thing.look.name in scene.caption.split() for scene in scenes)


def test_no_own_thing_is_in_the_training_scenes():
    assert not any(too_like_own(thing.look) for each in named_things().values() for thing in each)
    scenes = training_scenes(np.random.default_rng(4))
    assert not any(too_like_own(o.look) for _ in range(100) for scene in next(scenes)[0] for o in scene.objects)
    assert all(too_like_own(instance.look) for instance in INSTANCES.values())


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
    assert len(CHOOSING) >= 6 and len(REPORTING) >= 6 and len(INSTANCES) == len(CHOOSING) + len(REPORTING)
    for instance in INSTANCES.values():
        pictures, masks = photos(instance)
        assert pictures.shape == (5, SIDE, SIDE, 3) and masks.shape == (5, SIDE, SIDE)
        assert np.array_equal(pictures, photos(instance)[0])
        assert np.array_equal(photos(instance, 6)[0][5:], photos(instance, 1, 5)[0])
        assert 0.05 < masks.mean() < 0.6
        look = instance.look
        assert look.pattern and look.mark and look.body != look.second


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


def test_a_clock_rises_holds_and_falls():
    clock = Clock(100.0)
    assert clock.rate(0, 0.5) == pytest.approx(1 / 80, rel=0.01)
    assert clock.rate(1000, 0.5) == 1
    half = Clock(100.0, clock.began - 75)
    assert half.rate(1000, 0.5) == pytest.approx(0.5, abs=0.01)
    assert Clock(1.0, clock.began - 5).progress == 1


def test_tensors_of_the_hosts_shape_compute_the_same():
    model = UNet()
    full = host_state_dict(model.state_dict())
    x = torch.randn(2, 320)
    ours = model.time_embed(x)
    theirs = torch.nn.functional.linear(x, full["time_embed.0.weight"], full["time_embed.0.bias"])
    theirs = torch.nn.functional.silu(theirs)
    theirs = torch.nn.functional.linear(theirs, full["time_embed.2.weight"], full["time_embed.2.bias"])
    assert torch.allclose(theirs[:, : ours.shape[1]], ours, atol=1e-5) and not theirs[:, ours.shape[1] :].any()
    assert full["output_blocks.0.1.transformer_blocks.0.ff.net.0.proj.weight"].shape == (2560, 320)
    assert full["time_embed.2.weight"].shape == (1280, 1280)
