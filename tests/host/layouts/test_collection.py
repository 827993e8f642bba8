"""Collecting layouts in the real host: pictures from the stock sampler, stopping, and going on."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from compinv_core.basics.errors import UserError
from support import host, layouts

PIXELS = layouts.PixelDetector()


def collect(folder: Path, detector: Any = PIXELS, words: tuple[str, ...] = layouts.NOUNS, **options: Any) -> Any:
    model, clip, vae = host.load("tiny")
    from compinv_core.host.layouts.collection import CollectionConfig, collect_layouts
    from compinv_core.host.text.encoder import load_anchors

    hooks = {name: options.pop(name) for name in ("on_batch",) if name in options}
    config = CollectionConfig(**layouts.collection(**options))
    with torch.inference_mode():
        return collect_layouts(model, clip, vae, detector, load_anchors(clip, words), config, folder, **hooks)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 4 pairs with 4 pictures each, made in one go."""
    folder = tmp_path_factory.mktemp("layouts") / "whole"
    collect(folder)
    return folder


def test_every_picture_is_there_once_with_what_was_found(whole: Path) -> None:
    from compinv_core.layouts.dataset import read_dataset

    annotations = json.loads((whole / "annotations.json").read_text())
    assert [image["id"] for image in annotations["images"]] == list(range(1, 17))
    assert Counter(tuple(image["nouns"]) for image in annotations["images"]).most_common()[-1][1] == 2
    files = sorted(path.name for path in (whole / "images").iterdir())
    assert files == [Path(image["file_name"]).name for image in annotations["images"]]
    pictures = torch.stack(
        [torch.from_numpy(np.array(Image.open(whole / "images" / name))).float() / 255 for name in files]
    )
    assert pictures.shape == (16, 64, 64, 3) and len({picture.numpy().tobytes() for picture in pictures}) == 16
    # Looking again at the stored pictures finds the stored boxes.
    for image, found in zip(annotations["images"], PIXELS.detect(pictures), strict=True):
        scores = {each.label: each.score for each in found}
        stored = [a["score"] for a in annotations["annotations"] if a["image_id"] == image["id"]]
        assert stored == pytest.approx([scores[noun] for noun in image["nouns"] if noun in scores])
    dataset = read_dataset(whole)
    assert dataset.pictures == 16 and 0 < len(dataset.annotations) < 16


def test_pictures_are_those_of_the_stock_sampler(whole: Path) -> None:
    import nodes

    image = json.loads((whole / "annotations.json").read_text())["images"][0]
    model, clip, vae = host.load("tiny")
    with torch.inference_mode():
        positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (image["caption"], ""))
        latent = {"samples": torch.zeros(1, 4, 8, 8)}
        (sampled,) = nodes.common_ksampler(model, image["seed"], 1, 1.0, "euler", "normal", positive, negative, latent)
        expected = vae.decode(sampled["samples"])[0].clamp(0, 1).mul(255).round()
    stored = np.asarray(Image.open(whole / image["file_name"])).astype(int)
    # The data set paints two at a time, which may round differently.
    assert np.abs(stored - expected.numpy()).max() <= 1


def test_a_stopped_collection_ends_like_an_uninterrupted_one(whole: Path, tmp_path: Path) -> None:
    import comfy.model_management

    done: list[int] = []

    def stop_after_three(dataset: Any) -> None:
        done.append(dataset.pictures)
        if len(done) == 3:
            comfy.model_management.interrupt_current_processing()

    folder = tmp_path / "cut"
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        collect(folder, on_batch=stop_after_three)
    assert done == [2, 4, 6]
    assert len(json.loads((folder / "annotations.json").read_text())["images"]) == 6
    # A picture whose batch was not recorded before the plug was pulled is painted again, the same.
    (folder / "images" / "000016.png").write_bytes(b"half a file")
    later: list[int] = []
    collect(folder, on_batch=lambda dataset: later.append(dataset.pictures))
    assert later == [8, 10, 12, 14, 16]
    assert contents(folder) == contents(whole)


def test_nothing_is_painted_when_all_is_there_and_more_can_be_asked_for(whole: Path, tmp_path: Path) -> None:
    before = contents(whole)
    painted: list[int] = []
    collect(whole, on_batch=lambda dataset: painted.append(dataset.pictures))
    assert painted == [] and contents(whole) == before
    folder = tmp_path / "grown"
    collect(folder, images_per_pair=2)
    collect(folder, images_per_pair=4)
    names = sorted(path.name for path in (folder / "images").iterdir())
    assert names == sorted(path.name for path in (whole / "images").iterdir())
    for name in names:
        grown, straight = (np.asarray(Image.open(base / "images" / name)).astype(int) for base in (folder, whole))
        # Pictures were painted one at a time instead of two, which may round differently.
        assert np.abs(grown - straight).max() <= 1


def test_two_nouns_of_one_label_are_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = ("cats", "cat", "dog", "boats", "a boat")
    dataset = collect(tmp_path / "set", words=words, pairs=10, images_per_pair=1)
    # The label's own name where it is there, else the first.
    assert dataset.vocabulary == ("cat", "dog", "boats")
    assert len(dataset.pairs) == 3
    assert "cat and cats are the same to the detector; cats is left out" in caplog.text
    assert "boats and a boat are the same to the detector; a boat is left out" in caplog.text


def test_the_fingerprint_changes_with_the_folder_but_not_through_the_collection_itself(tmp_path: Path) -> None:
    import comfy.model_management

    from compinv_core.host.layouts.collection import data_set_fingerprint

    def stop(dataset: Any) -> None:
        comfy.model_management.interrupt_current_processing()

    folder = tmp_path / "set"
    first = data_set_fingerprint(folder)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        collect(folder, images_per_pair=2, on_batch=stop)
    # Not whole yet: the next run must not take an old result.
    halfway = data_set_fingerprint(folder)
    assert halfway != first
    collect(folder, images_per_pair=2)
    assert data_set_fingerprint(folder) == halfway
    collect(folder, images_per_pair=4)
    assert data_set_fingerprint(folder) == halfway
    (folder / "annotations.json").write_text("{}")
    assert data_set_fingerprint(folder) not in (first, halfway)
    shutil.rmtree(folder)
    deleted = data_set_fingerprint(folder)
    assert deleted not in (first, halfway)
    collect(folder, images_per_pair=2)
    assert data_set_fingerprint(folder) == deleted


def test_another_seed_or_detector_is_refused_and_nothing_is_lost(whole: Path) -> None:
    before = contents(whole)
    with pytest.raises(UserError, match="another seed"):
        collect(whole, seed=1)
    with pytest.raises(UserError, match="another detector"):
        collect(whole, detector=layouts.PixelDetector(name="other"))
    assert contents(whole) == before


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"words": ("car", "house")}, "finds none of the nouns"),
        ({"words": ("cat", "house")}, "only one noun"),
        ({"words": ("cat", "cats")}, r"only one noun of the vocabulary \(cat\)"),
        ({"template": "a photo of a {}"}, "exactly twice"),
        ({"template": "{} and {} {0}"}, "exactly twice"),
        ({"width": 60}, "multiple of 8"),
        ({"pairs": 0}, "pairs is 0"),
        ({"sampler_name": "best"}, 'sampler_name is "best"'),
    ],
)
def test_bad_input_gets_a_sentence_before_anything_is_written(tmp_path: Path, options: dict, part: str) -> None:
    with pytest.raises(UserError, match=part) as caught:
        collect(tmp_path / "never", **options)
    assert str(caught.value).endswith(".") and ". " not in str(caught.value)
    assert not (tmp_path / "never").exists()
