"""Files of strangers, damaged at random or made by a grammar: each is read, or refused in a sentence."""

from __future__ import annotations

import functools
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from support import host
from support.attacks.amounts import seeds
from support.attacks.mutations import damage_of
from support.attacks.pickles import write_odd
from support.attacks.watch import answer
from support.layouts import NOUNS
from support.models import detector_files, encoder_folders

PICTURE = torch.rand(1, 40, 64, 3, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Kind:
    """A kind of file: how a sound one is made in a folder, and all that reads it.

    Attributes
    ----------
    make : callable (Path) -> None
        Fills a folder with sound files.
    read : callable (Path) -> object
        Reads the folder; the sound files without a complaint.
    more : tuple of such callables
        Read it, too, and may complain of any.
    few, many : int
        Cases in the suite, and by command.
    odd : str
        Of a file of PyTorch's that is also made by the grammar; the rest of the line are names in it.
    """

    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    few: int
    many: int
    odd: str = ""
    more: tuple[Callable[[Path], Any], ...] = ()


@functools.cache
def clip() -> Any:
    return host.load("tiny")[1]


def make_embedding(folder: Path) -> None:
    save_file(
        {"<word>": torch.rand(2, 768)}, folder / "word.safetensors", {"compinv_version": "1", "superclass": "cat"}
    )


def make_embedding_xl(folder: Path) -> None:
    parts = {"clip_l": torch.rand(2, 768), "clip_g": torch.rand(2, 1280)}
    save_file(parts, folder / "word.safetensors", {"compinv_version": "1"})


def make_old_embedding(folder: Path) -> None:
    torch.save({"string_to_param": {"*": torch.rand(2, 768)}, "name": "word", "step": 3}, folder / "word.pt")


def read_embedding(folder: Path) -> None:
    from compinv_core.learning.embedding_file import read_concept

    read_concept(word_in(folder))


def read_embedding_xl(folder: Path) -> None:
    from compinv_core.learning.embedding_file import read_concept

    read_concept(word_in(folder), {"clip_l": 768, "clip_g": 1280})


def prompt_with(phrase: str) -> Callable[[Path], None]:
    """What the host reads of it inside a prompt."""

    def read(folder: Path) -> None:
        from compinv_core.host.text.spans import find_spans

        path = word_in(folder)
        place = host.start() / "models" / "embeddings" / f"attacked{path.suffix}"
        shutil.copytree(path, place) if path.is_dir() else shutil.copyfile(path, place)
        try:
            find_spans(clip(), "a embedding:attacked cat", [phrase], "Test Node")
        finally:
            shutil.rmtree(place) if path.is_dir() else place.unlink()

    return read


def replace_embedding(folder: Path) -> None:
    from compinv_core.learning.embedding_file import check_replaceable

    check_replaceable(folder / "word.safetensors")


def word_in(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def make_predictor(folder: Path) -> None:
    from compinv_core.layouts.predictor import LayoutPredictor, PairNetwork
    from compinv_core.layouts.predictor_file import write_predictor

    network = PairNetwork(768, 8)
    write_predictor(LayoutPredictor("p", network, NOUNS, "raw", "{} and {}", "", {}), folder / "p.safetensors")


def read_predictor_file(folder: Path) -> None:
    from compinv_core.host.layouts.prediction import predict_layout
    from compinv_core.layouts.predictor_file import read_predictor

    predictor = read_predictor(folder / "p.safetensors")
    with torch.inference_mode():
        predict_layout(predictor, clip(), ("a cat", "a dog"), 64, 64)


def make_run(folder: Path) -> None:
    train_a_little(folder, 2)


def train_a_little(folder: Path, steps: int) -> None:
    from compinv_core.training.loop import LoopSettings, train
    from compinv_core.training.run_folder.state import RunStore
    from support.noisy_regression import NoisyRegression

    settings = LoopSettings(steps=steps, save_every=1)
    train(NoisyRegression(), settings, RunStore(folder, {"a": "1", "b": "x"}, {"c": 1}))


def read_run(folder: Path) -> None:
    from compinv_core.training.run_folder.state import RunStore

    RunStore(folder, {"a": "1", "b": "x"}, {"c": 1}).check(4, True)
    train_a_little(folder, 4)


def make_layouts(folder: Path) -> None:
    rows, images = [], []
    pairs = [["cat", "dog"], ["boat", "tree"], ["cat", "tree"]]
    (folder / "images").mkdir()
    for number in range(1, 7):
        pair = number % 3
        name = f"images/{number:07}.png"
        Image.new("RGB", (8, 8)).save(folder / name)
        images.append(
            {"id": number, "file_name": name, "width": 64, "height": 64, "caption": "c", "nouns": pairs[pair],
             "pair": pair, "seed": number, "complete": True}
        )  # fmt: skip
        for slot, noun in enumerate(pairs[pair]):
            rows.append(
                {"id": 2 * number + slot, "image_id": number, "category_id": NOUNS.index(noun) + 1, "score": 0.9,
                 "bbox": [4.0 + 30 * slot, 8.0, 20.0, 30.5], "area": 610.0, "iscrowd": 0}
            )  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps({"format": "compinv-layouts-1", "settings": manifest(pairs)}))
    (folder / "annotations.json").write_text(json.dumps({"images": images, "annotations": rows, "categories": []}))


def manifest(pairs: list[list[str]]) -> dict[str, Any]:
    return {
        "vocabulary": list(NOUNS), "pairs": pairs, "detector": "d", "text_encoder": "", "template": "{} and {}",
        "steps": 1, "cfg": 1.0, "seed": 0, "threshold": 0.5,
    }  # fmt: skip


def read_layouts(folder: Path) -> None:
    from compinv_core.layouts.dataset import read_dataset
    from compinv_core.layouts.store import LayoutStore
    from compinv_core.layouts.training import LayoutTrainingConfig, train_layout

    store = LayoutStore(folder, manifest([["cat", "dog"], ["boat", "tree"], ["cat", "tree"]]))
    store.forget_lost()
    dataset = read_dataset(folder)
    features = {row.nouns: torch.ones(2, 4) for row in dataset.annotations}
    train_layout(dataset.annotations, features, LayoutTrainingConfig(epochs=1))


def make_anchors(folder: Path) -> None:
    text = "cat\ndog, boat; 'tree'\n# a comment\nteddy bear\n猫\n" + "bird\n" * 3
    (folder / "mine.txt").write_text(text, encoding="utf-8")


def read_anchors(folder: Path) -> None:
    from compinv_core.host.text.encoder import load_anchors
    from compinv_core.words.nouns import read_words

    load_anchors(clip(), read_words(folder / "mine.txt"))


def read_detr(folder: Path) -> None:
    from compinv_core.detectors.detr import load_detr

    load_detr(folder, "detr", 0.3).detect(PICTURE)


def make_yolo(folder: Path) -> None:
    shutil.copyfile(yolo_file(), folder / "yolo.pt")


@functools.cache
def yolo_file() -> Path:
    from miniworld.host import REPOSITORY

    return REPOSITORY / "miniworld" / "weights" / "detector-yolo.pt"


def read_yolo(folder: Path) -> None:
    from compinv_core.detectors.yolo import load_yolo

    load_yolo(folder / "yolo.pt", "yolo", 0.3, host.start() / "temp" / "yolo").detect(PICTURE)


def read_clip(folder: Path) -> None:
    from compinv_core.measures.encoder_folder import kind_of
    from compinv_core.measures.encoders import load_clip

    kind_of(folder)
    encoder = load_clip(folder, "clip")
    encoder.encode_images(PICTURE)
    encoder.encode_text("a cat")


def read_look(folder: Path) -> None:
    from compinv_core.measures.encoders import load_look

    load_look(folder, "look").encode_images(PICTURE)


def make_lora(folder: Path) -> None:
    save_file({"diffusion_model.x.diff": torch.rand(3, 3)}, folder / "l.safetensors", {"compinv_version": "1"})


def overwrite_lora(folder: Path) -> None:
    from compinv_core.learning.lora_file import write_lora

    write_lora({"diffusion_model.x.diff": torch.rand(3, 3)}, folder / "l.safetensors", {"compinv_version": "1"})


def make_class_pictures(folder: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(folder / "0000.png")


def read_class_picture(folder: Path) -> None:
    from compinv_core.host.painting import read_picture

    read_picture(folder / "0000.png", 64, 64)


WORDS = (prompt_with("a"), prompt_with("embedding:attacked cat"), replace_embedding, read_embedding, read_embedding_xl)
KINDS = {
    "embedding": Kind(make_embedding, read_embedding, 60, 700, more=WORDS),
    "embedding of SDXL": Kind(make_embedding_xl, read_embedding_xl, 20, 200, more=WORDS),
    "embedding .pt": Kind(
        make_old_embedding, read_embedding, 60, 700, "word.pt clip_l string_to_param * emb_params", WORDS
    ),
    "predictor": Kind(make_predictor, read_predictor_file, 40, 500),
    "training state": Kind(make_run, read_run, 40, 500),
    "layouts": Kind(make_layouts, read_layouts, 80, 800),
    "anchors": Kind(make_anchors, read_anchors, 30, 300),
    "detr": Kind(detector_files.save_detr, read_detr, 20, 300),
    "yolo": Kind(make_yolo, read_yolo, 12, 150, "yolo.pt model ema names yaml train_args"),
    "clip": Kind(encoder_folders.save_clip, read_clip, 15, 200),
    "clip .bin": Kind(
        functools.partial(encoder_folders.save_clip, pickled=True), read_clip, 15, 200, "pytorch_model.bin logit_scale"
    ),
    "dino": Kind(encoder_folders.save_dino, read_look, 15, 150),
    "dinov2": Kind(encoder_folders.save_dinov2, read_look, 15, 150),
    "lora": Kind(make_lora, overwrite_lora, 20, 200),
    "class picture": Kind(make_class_pictures, read_class_picture, 20, 200),
}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_read_or_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    sound = tmp_path / "sound"
    sound.mkdir()
    kind.make(sound)
    shutil.copytree(sound, tmp_path / "read" / "again")
    assert answer(lambda: kind.read(tmp_path / "read" / "again")) == ""
    refused = 0
    for seed in seeds(kind.few, kind.many):
        rng, folder = random.Random(f"{name} {seed}"), tmp_path / f"case {seed}" / "attacked"
        shutil.copytree(sound, folder)
        damage(kind, folder, rng)
        try:
            refused += bool(answer(functools.partial(kind.read, folder), folder))
            for read in kind.more:
                answer(functools.partial(read, folder), folder)
        except AssertionError as error:
            raise AssertionError(f"{name}, seed {seed}: {error}") from error
        assert not (folder.parent / "trap").exists(), seed
        shutil.rmtree(folder.parent)
    # Most damage is to be noticed; a digit of a score, or a byte of a weight, is not.
    assert refused > len(seeds(kind.few, kind.many)) / 10 or name == "class picture" or name == "lora"


def damage(kind: Kind, folder: Path, rng: random.Random) -> None:
    file, *names = kind.odd.split() or [""]
    if file and rng.random() < 0.5:
        write_odd(folder / file, rng, tuple(names), folder.parent / "trap")
        return
    path = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    if rng.random() < 0.03:
        path.unlink()
        rng.choice((path.mkdir, path.touch))()
        return
    damage_of(path)(path, rng)
