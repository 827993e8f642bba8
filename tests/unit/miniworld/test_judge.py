"""The judge's loss, and what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from miniworld.laboratory.judging import judged_rows, seen, summary
from miniworld.networks.judge import NOUN_NAMES, Judge, crops
from miniworld.training.judge import Truths, accuracy, identity_loss, judge_loss
from miniworld.training.pictures import truth
from miniworld.world.dataset import scene_with_one_twice, training_portraits, training_scene
from miniworld.world.instances import INSTANCES, photos
from miniworld.world.scenes import render_scene


@pytest.fixture(scope="module")
def truths() -> Truths:
    rng = np.random.default_rng(0)
    return Truths.of_scenes([truth(render_scene(rng)) for _ in range(12)])


def loss_of(judge: Judge, truths: Truths, objects: torch.Tensor) -> torch.Tensor:
    return judge_loss(judge, truths.pictures.float() / 255, objects, truths.masks, truths.backgrounds)


@pytest.mark.parametrize("spoil", ["nothing", "no pattern", "no second object"])
def test_loss_is_finite_whatever_a_batch_lacks(truths, spoil):
    torch.manual_seed(0)
    judge, objects = Judge(), truths.objects.clone()
    if spoil == "no pattern":
        objects[..., 6] = -1
    if spoil == "no second object":
        objects[:, 1:] = -1
    loss = loss_of(judge, truths, objects)
    loss.backward()
    assert loss.isfinite()
    # The identifier has a loss of its own.
    found = [p for name, p in judge.named_parameters() if not name.startswith("identi")]
    assert all(p.grad.isfinite().all() for p in found)


def test_a_few_steps_lower_the_loss(truths):
    torch.manual_seed(0)
    judge = Judge()
    optimiser = torch.optim.AdamW(judge.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        loss = loss_of(judge, truths, truths.objects)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_best_box_is_the_one_at_the_highest_cell(truths):
    verdict = Judge()(truths.pictures[:1].float() / 255)
    cell = int(verdict.centres[0, 3].argmax())
    assert torch.equal(verdict.best_boxes()[0, 3], verdict.boxes[0].flatten(1)[:, cell])
    assert verdict.presence().shape == (1, len(NOUN_NAMES))


def test_a_crop_is_what_lies_in_the_box():
    picture = torch.zeros(1, 3, 128, 128)
    picture[:, 0, 32:64, 64:128] = 1
    cut = crops(picture, torch.tensor([[0.5, 0.25, 1.0, 0.5]]), grow=1.0)
    assert cut.shape == (1, 3, 64, 64)
    assert cut[0, 0, 2:-2, 2:-2].min() == 1 and cut[0, 1:].max() == 0


def test_identity_loss_is_least_where_views_of_one_thing_agree():
    things = torch.eye(4)
    assert identity_loss(things, things) < 0.01
    assert identity_loss(things, things.roll(1, 0)) > 10


def test_portraits_of_one_thing_are_pairs_of_one_group():
    rng = np.random.default_rng(2)
    scenes = []
    for group in range(3):
        scenes += [truth(scene) | {"groups": group} for scene in training_portraits(rng)]
    scenes.append(truth(training_scene(rng)) | {"groups": -1})
    data = Truths.of_scenes(scenes)
    pairs = torch.cat(data.portraits(len(scenes)))
    assert len(pairs) == 9
    assert torch.equal(data.groups[pairs[:, 0]], data.groups[pairs[:, 1]])


def test_own_things_of_photos_are_found_and_told_apart():
    pictures = torch.from_numpy(np.concatenate([photos(thing, 1, 5)[0] for thing in INSTANCES.values()]))
    shown = pictures.permute(0, 3, 1, 2) / 255.0
    rows = [judged_rows(shown[k : k + 1], name, None)[0] for k, name in enumerate(INSTANCES)]
    assert np.mean([row["identified"] for row in rows]) > 0.9
    assert all(row["all_there"] == row["own"] and row["composed"] == 0 for row in rows)
    wrong = judged_rows(shown[:1], "my-cat", "boat")[0]
    assert (wrong["own"], wrong["composed"], wrong["identified"], wrong["object_alignment"]) == (0, 0, 0, None)
    assert wrong["background"] < rows[0]["background"] - 0.3


def test_one_noun_twice_is_seen():
    rng = np.random.default_rng(5)
    scenes = [scene_with_one_twice(rng) for _ in range(20)]
    pictures = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2) / 255.0
    right = []
    for sight, scene in zip(seen(pictures), scenes, strict=True):
        nouns = [thing.noun for thing in scene.objects]
        right.append(sight.counts == {noun: nouns.count(noun) for noun in nouns})
        for noun, box in sight.boxes.items():
            assert noun in sight.counts and box[0] < box[2] and box[1] < box[3]
    assert np.mean(right) > 0.9


def test_accuracy_counts_by_hand(truths):
    class Says:
        """A judge that finds a ball twice in the first picture, and nothing else."""

        def __call__(self, pictures):
            return self

        def counts(self):
            counts = torch.zeros(2, len(NOUN_NAMES), dtype=torch.long)
            counts[0, 0] = 2
            return counts

        def presence(self):
            return (self.counts() > 0).float()

    objects = torch.full((2, 3, 9), -1.0)
    objects[0, 0, 0] = objects[0, 1, 0] = 0
    objects[1, 0, 0] = 3
    scores = accuracy(Says(), truths.pictures[:2], objects)
    assert scores == {
        "recall": 0.5, "precision": 1.0, "worst recall": 0.0, "counts right": 0.5, "duplicates seen": 1.0,
    }  # fmt: skip


def test_summary_counts_by_hand():
    common = {"composed": 1, "text_alignment": 0.5}
    rows = [{"own": 1, "object_alignment": 0.5, **common}, {"own": 0, "object_alignment": None, **common}]
    assert summary(rows) == {
        "n": 2, "found": 1, "own": 0.5, "object_alignment": 0.5, "composed": 1, "text_alignment": 0.5,
    }  # fmt: skip
