"""The layout data set: balance, both orders, resuming, and COCO's format as COCO's own tools read it."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import time
from collections import Counter
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from compinv_core.basics.errors import UserError
from compinv_core.detectors.detections import Detection
from compinv_core.layouts.dataset import read_dataset
from compinv_core.layouts.plan import Plan, PlannedImage, batches, choose_pairs
from compinv_core.layouts.store import LayoutStore

NOUNS = ("cat", "boat", "moon", "tree")
PAIRS = (("cat", "boat"), ("moon", "tree"), ("cat", "moon"))
SETTINGS = {
    "text_encoder": "abc", "detector": "judge", "template": "a {} and a {}", "vocabulary": list(NOUNS),
    "pairs": [list(pair) for pair in PAIRS], "seed": 0,
}  # fmt: skip


def plan_images(pairs: list, images_per_pair: int, seed: int) -> list[PlannedImage]:
    return list(Plan(tuple(pairs), images_per_pair, seed))


def found(image, missing: bool = False) -> tuple[Detection | None, Detection | None]:
    shift = image.image_id / 1000
    first = Detection(image.nouns[0], 0.9, (0.1, 0.2 + shift, 0.5, 0.6 + shift))
    return first, None if missing else Detection(image.nouns[1], 0.8, (0.5, 0.25, 1.0, 0.75))


def fill(folder: Path, images: list, missing: tuple[int, ...] = ()) -> LayoutStore:
    store = LayoutStore(folder, SETTINGS)
    for batch in batches(store.missing(images), 2):
        add(store, batch, missing)
    return store


def add(store: LayoutStore, batch: list, missing: tuple[int, ...] = ()) -> None:
    for image in batch:
        store.image_path(image).parent.mkdir(parents=True, exist_ok=True)
        store.image_path(image).touch()
    store.add([(image, found(image, image.image_id in missing)) for image in batch], (200, 100))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pairs_use_all_nouns_equally() -> None:
    nouns = [f"noun{i}" for i in range(16)]
    pairs = choose_pairs(nouns, 24, seed=0)
    assert len({frozenset(pair) for pair in pairs}) == 24
    assert set(Counter(itertools.chain(*pairs)).values()) == {3}
    assert choose_pairs(nouns, 24, seed=0) == pairs != choose_pairs(nouns, 24, seed=1)
    assert len(choose_pairs(NOUNS, 100, seed=0)) == 6
    # Drawn anew for every run: other pairs would part a data set from its earlier runs.
    assert choose_pairs(NOUNS, 3, seed=0) == (("cat", "tree"), ("boat", "moon"), ("moon", "tree"))


def test_plan_is_balanced_and_has_both_orders() -> None:
    plan = plan_images(PAIRS, 4, seed=0)
    assert [image.image_id for image in plan] == list(range(1, 13))
    assert Counter(image.nouns for image in plan) == {order: 2 for pair in PAIRS for order in (pair, pair[::-1])}
    assert len({image.seed for image in plan}) == 12 and all(0 <= image.seed < 2**63 for image in plan)
    # More pictures per pair leave the first ones as they are.
    assert plan_images(PAIRS, 6, seed=0)[:12] == plan
    assert plan_images(PAIRS, 4, seed=1)[0].seed != plan[0].seed


def test_batches_share_a_prompt_and_hold_every_picture_once() -> None:
    plan = plan_images(PAIRS, 5, seed=0)
    groups = list(batches(plan, 2))
    assert all(len({image.nouns for image in group}) == 1 and len(group) <= 2 for group in groups)
    assert sorted(image.image_id for group in groups for image in group) == list(range(1, 16))


def test_coco_tools_read_the_annotations(tmp_path: Path) -> None:
    fill(tmp_path / "set", plan_images(PAIRS, 2, seed=0), missing=(2,))
    with contextlib.redirect_stdout(io.StringIO()):
        tool = COCO(str(tmp_path / "set" / "annotations.json"))
    assert sorted(tool.getImgIds()) == [1, 2, 3, 4, 5, 6]
    assert len(set(tool.getAnnIds())) == 11
    boats = tool.getAnnIds(catIds=tool.getCatIds(catNms=["boat"]))
    assert [tool.loadAnns(i)[0]["image_id"] for i in boats] == [1, 4]
    (annotation,) = tool.loadAnns(tool.getAnnIds(imgIds=[2]))
    assert annotation["bbox"] == pytest.approx([20, 20.2, 80, 40])
    assert annotation["area"] == pytest.approx(3200)
    image = tool.loadImgs(4)[0]
    assert (image["file_name"], image["caption"]) == ("images/000004.png", "a boat and a cat")


def test_a_plan_of_millions_begins_at_once() -> None:
    nouns = [f"noun{i}" for i in range(80)]
    started = time.process_time()
    plan = Plan(choose_pairs(nouns, 3160, seed=0), 10_000, seed=0)
    assert len(plan) == 31_600_000
    (first,) = itertools.islice(batches(plan, 4), 1)
    assert len(first) == 4
    assert time.process_time() - started < 5


def test_pictures_that_are_deleted_meanwhile_are_made_again(tmp_path: Path) -> None:
    plan = plan_images(PAIRS, 2, seed=0)
    store = fill(tmp_path / "set", plan)
    before = contents(tmp_path / "set")
    assert store.forget_lost() == 0
    for lost in ({plan[0], plan[4]}, set(plan)):
        for image in lost:
            store.image_path(image).unlink()
        assert store.forget_lost() == len(lost)
        assert set(store.missing(plan)) == lost
        assert store.count(Plan(tuple(PAIRS), 2, 0)) == len(plan) - len(lost)
        for batch in batches(store.missing(plan), 2):
            add(store, batch)
        assert contents(tmp_path / "set") == before


ROW = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 30], "area": 600, "iscrowd": 0, "score": 0.9}
ODD = ["x", None, [1], {}, True, 1.5, float("nan"), 10**400]


@pytest.mark.parametrize("key", ["id", "image_id", "category_id", "bbox", "score"])
@pytest.mark.parametrize("value", ODD, ids=str)
def test_annotations_edited_by_hand_are_read_or_get_a_sentence(tmp_path: Path, key: str, value: object) -> None:
    plan = plan_images(PAIRS, 1, seed=0)
    fill(tmp_path / "set", plan)
    file = tmp_path / "set" / "annotations.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": [{**ROW, key: value}]}))
    read = True
    for attempt in (lambda: LayoutStore(tmp_path / "set", SETTINGS).dataset(), lambda: read_dataset(tmp_path / "set")):
        try:
            attempt()
        except UserError:
            read = False
    assert read == ((key == "score" and value == 1.5) or (key == "id" and type(value) is int))


@pytest.mark.parametrize("name", ["annotations.json", "manifest.json"])
@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "\x00", "null", "NaN", "9" * 5000])
def test_files_that_are_no_data_get_a_sentence(tmp_path: Path, name: str, text: str) -> None:
    fill(tmp_path / "set", plan_images(PAIRS, 1, seed=0))
    (tmp_path / "set" / name).write_text(text)
    with pytest.raises(UserError, match="choose another name for `dataset`"):
        read_dataset(tmp_path / "set")


def test_pipes_and_folders_are_no_data(tmp_path: Path) -> None:
    fill(tmp_path / "set", plan_images(PAIRS, 1, seed=0))
    (tmp_path / "set" / "manifest.json").unlink()
    os.mkfifo(tmp_path / "set" / "manifest.json")
    with pytest.raises(UserError):
        LayoutStore(tmp_path / "set", SETTINGS)


def test_data_set_knows_what_was_found_and_what_is_missing(tmp_path: Path) -> None:
    store = fill(tmp_path / "set", plan_images(PAIRS, 2, seed=0), missing=(2,))
    dataset = read_dataset(tmp_path / "set")
    assert dataset == store.dataset()
    assert (dataset.pictures, dataset.incomplete, len(dataset.annotations)) == (6, 1, 5)
    assert dataset.pairs == PAIRS and dataset.detector == "judge" and dataset.template == "a {} and a {}"
    assert dataset.annotations[2].nouns == ("boat", "cat")
    assert dataset.annotations[2].boxes[0] == pytest.approx((0.1, 0.204, 0.5, 0.604))
    assert dataset.annotations[2].boxes[1] == pytest.approx((0.5, 0.25, 1.0, 0.75))


def test_an_interrupted_data_set_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    plan = plan_images(PAIRS, 4, seed=0)
    fill(tmp_path / "whole", plan)
    store = LayoutStore(tmp_path / "cut", SETTINGS)
    for batch in itertools.islice(batches(plan, 2), 3):
        add(store, batch)
    assert len(list(LayoutStore(tmp_path / "cut", SETTINGS).missing(plan))) == 6
    fill(tmp_path / "cut", plan)
    texts = [(tmp_path / name / "annotations.json").read_text() for name in ("whole", "cut")]
    assert texts[0] == texts[1]
    assert not list(LayoutStore(tmp_path / "cut", SETTINGS).missing(plan))


def test_a_picture_whose_file_is_gone_is_made_again(tmp_path: Path) -> None:
    plan = plan_images(PAIRS, 2, seed=0)
    store = fill(tmp_path / "set", plan)
    before = contents(tmp_path / "set")
    store.image_path(plan[3]).unlink()
    again = LayoutStore(tmp_path / "set", SETTINGS)
    assert list(again.missing(plan)) == [plan[3]] and again.dataset().pictures == 5
    fill(tmp_path / "set", plan)
    assert contents(tmp_path / "set") == before


def test_what_a_killed_run_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    plan = plan_images(PAIRS, 1, seed=0)
    fill(tmp_path / "set", plan)
    before = contents(tmp_path / "set")
    for name in (".annotations.json.17.tmp", "images/.000002.png.17.tmp"):
        (tmp_path / "set" / name).write_text("half")
    with pytest.raises(UserError):
        LayoutStore(tmp_path / "set", {**SETTINGS, "seed": 1})
    assert len(contents(tmp_path / "set")) == len(before) + 2
    LayoutStore(tmp_path / "set", SETTINGS)
    assert contents(tmp_path / "set") == before


def test_a_data_set_can_grow(tmp_path: Path) -> None:
    fill(tmp_path / "set", plan_images(PAIRS, 2, seed=0))
    store = LayoutStore(tmp_path / "set", SETTINGS)
    assert [image.image_id for image in store.missing(plan_images(PAIRS, 3, seed=0))] == [7, 8, 9]


def test_a_data_set_that_an_earlier_version_began_is_known_again(tmp_path: Path) -> None:
    before = {**SETTINGS, "text_encoder": "sampled digest"}
    images = plan_images([("cat", "boat")], 2, 0)
    add(LayoutStore(tmp_path, before), images)
    now = {**SETTINGS, "text_encoder": "whole digest"}
    assert not list(LayoutStore(tmp_path, now, lambda: {"text_encoder": "sampled digest"}).missing(images))
    with pytest.raises(UserError, match="another text_encoder; restore"):
        LayoutStore(tmp_path, now, lambda: {"text_encoder": "yet another"})


def test_other_settings_get_a_sentence_and_change_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "set", plan_images(PAIRS, 1, seed=0))
    before = contents(tmp_path / "set")
    with pytest.raises(UserError, match="another detector and another seed"):
        LayoutStore(tmp_path / "set", {**SETTINGS, "seed": 1, "detector": "yolo"})
    assert contents(tmp_path / "set") == before


PLAIN_COCO = {
    "images": [{"id": 1, "file_name": "000001.jpg", "width": 200, "height": 100}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]}],
    "categories": [{"id": 1, "name": "cat"}],
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("manifest.json", "{"),
        ("manifest.json", "[]"),
        ("annotations.json", "x"),
        ("annotations.json", "{}"),
        ("annotations.json", '{"images": 5, "annotations": []}'),
        ("annotations.json", '{"images": [5], "annotations": []}'),
        ("annotations.json", json.dumps(PLAIN_COCO)),
    ],
)
def test_broken_files_get_a_sentence(tmp_path: Path, name: str, text: str) -> None:
    fill(tmp_path / "set", plan_images(PAIRS, 1, seed=0))
    (tmp_path / "set" / name).write_text(text)
    before = contents(tmp_path / "set")
    for attempt in (lambda: LayoutStore(tmp_path / "set", SETTINGS), lambda: read_dataset(tmp_path / "set")):
        with pytest.raises(UserError, match="choose another name for `dataset`") as caught:
            attempt()
        assert str(caught.value).endswith(".") and ". " not in str(caught.value)
    assert contents(tmp_path / "set") == before


def test_settings_that_lack_something_get_a_sentence(tmp_path: Path) -> None:
    fill(tmp_path / "set", plan_images(PAIRS, 1, seed=0))
    (tmp_path / "set" / "manifest.json").write_text(json.dumps({"format": "compinv-layouts-1", "settings": {}}))
    with pytest.raises(UserError, match="damaged or not of this pack"):
        read_dataset(tmp_path / "set")


def test_annotations_without_a_manifest_are_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "annotations.json").write_text(json.dumps({**PLAIN_COCO, "images": [], "annotations": []}))
    before = contents(tmp_path)
    with pytest.raises(UserError, match="choose another name for `dataset`"):
        LayoutStore(tmp_path, SETTINGS)
    assert contents(tmp_path) == before


def test_foreign_folders_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no layout data set"):
        read_dataset(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": "other"}))
    (tmp_path / "annotations.json").write_text(json.dumps({}))
    with pytest.raises(UserError, match="not of this pack"):
        read_dataset(tmp_path)
