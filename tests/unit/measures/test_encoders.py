"""CLIP, DINO and DINOv2 from folders: the library's own numbers, and one sentence for what is broken."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from compinv_core.basics.errors import UserError
from compinv_core.measures.encoder_folder import kind_of
from compinv_core.measures.encoders import load_clip, load_look
from compinv_core.measures.likeness import cosines
from support.models.encoder_folders import edit_json, save_clip, save_dino, save_dinov2

PROMPT = "a photo of a cat and a backpack"


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("encoders") / "clip")


def pictures(count: int = 3, side: tuple[int, int] = (40, 56)) -> torch.Tensor:
    values = np.random.default_rng(0).integers(0, 256, (count, *side, 3), dtype=np.uint8)
    return torch.from_numpy(values).float() / 255


def test_clip_gives_the_numbers_of_torchmetrics(clip_folder: Path) -> None:
    clip = load_clip(clip_folder, "small")
    mine = cosines(clip.encode_images(pictures()), clip.encode_text(PROMPT)[None])[:, 0]

    from torchmetrics.multimodal.clip_score import CLIPScore

    # Their model is asked with the same processor and tokenizer, which it would otherwise look for on the network.
    theirs = CLIPScore(model_name_or_path=lambda: (Tensors(clip.network), Both(clip)))
    for picture, expected in zip(pictures(), mine, strict=True):
        theirs.reset()
        theirs.update((picture.movedim(-1, 0) * 255).round().byte(), PROMPT)
        assert float(theirs.compute()) == pytest.approx(100 * max(float(expected), 0), abs=1e-3)


class Tensors(torch.nn.Module):
    """A CLIP whose features are tensors, as torchmetrics expects them; the library returns more by now."""

    def __init__(self, network) -> None:
        super().__init__()
        self.network, self.config = network, network.config

    def get_image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network.visual_projection(self.network.vision_model(pixels).pooler_output)

    def get_text_features(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.network.text_projection(self.network.text_model(ids, attention_mask=mask).pooler_output)


class Both:
    """A processor as torchmetrics calls it: pictures and text at once."""

    def __init__(self, clip) -> None:
        self.image_processor, self.tokenizer = clip.processor, clip.tokenizer

    def __call__(self, text=None, images=None, **options):
        found = dict(self.tokenizer(text, return_tensors="pt", padding=True)) if text is not None else {}
        if images is not None:
            found |= dict(self.image_processor(images=images, return_tensors="pt"))
        return found


@pytest.mark.parametrize(("save", "load"), [(save_clip, load_clip), (save_dino, load_look), (save_dinov2, load_look)])
def test_folders_give_the_librarys_own_features(tmp_path: Path, save: Callable, load: Callable) -> None:
    from transformers import AutoImageProcessor, AutoModel

    folder = save(tmp_path / "network")
    encoder = load(folder, "small")
    files = [Image.fromarray(np.uint8((each * 255).round().numpy())) for each in pictures()]
    pixels = AutoImageProcessor.from_pretrained(folder)(images=files, return_tensors="pt")["pixel_values"]
    network = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        if kind_of(folder) == "clip":
            expected = network.visual_projection(network.vision_model(pixels).pooler_output)
        else:
            expected = network(pixels).last_hidden_state[:, 0]
    assert torch.allclose(encoder.encode_images(pictures()), expected, atol=1e-6)
    assert torch.equal(encoder.encode_images(pictures()), encoder.encode_images(pictures()))


def test_pickled_weights_are_read_without_running_anything(tmp_path: Path, clip_folder: Path) -> None:
    pickled = load_clip(save_clip(tmp_path / "pickled", pickled=True), "pickled")
    assert torch.equal(pickled.encode_images(pictures()), load_clip(clip_folder, "safe").encode_images(pictures()))

    class Touch:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"text_projection.weight": Touch()}, tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(UserError, match="holds no tensors alone; download it again"):
        load_clip(tmp_path / "pickled", "evil")
    assert not (tmp_path / "ran").exists()


def test_a_long_prompt_is_cut_as_the_network_reads(clip_folder: Path) -> None:
    clip = load_clip(clip_folder, "small")
    assert clip.encode_text("a cat and " * 60).shape == (16,)
    assert not torch.equal(clip.encode_text(PROMPT), clip.encode_text("a dog"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json; put a network"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json in .* is not readable"),
        (lambda folder: edit_json(folder / "config.json", model_type="bert"), 'is of the type "bert"'),
        (lambda folder: edit_json(folder / "config.json", vision_config=3), "vision_config .* is no object"),
        (lambda folder: edit_json(folder / "config.json", vision_config={"hidden_size": 33}), "cannot be built|lack"),
        (lambda folder: edit_json(folder / "config.json", vision_config={"hidden_size": 10**9}), "cannot be built"),
        (lambda folder: (folder / "model.safetensors").unlink(), "neither model.safetensors nor pytorch_model.bin"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "model.safetensors"),
        (lambda folder: (folder / "vocab.json").unlink(), "has no vocab.json"),
        (lambda folder: (folder / "merges.txt").write_bytes(b"\xff\xfe"), "vocabulary of .* is not readable"),
        (lambda folder: edit_json(folder / "preprocessor_config.json", image_processor_type="Sam"), 'is "Sam"'),
        (lambda folder: edit_json(folder / "preprocessor_config.json", size={"shortest_edge": -4}), "makes no sense"),
        (lambda folder: edit_json(folder / "preprocessor_config.json", size={"shortest_edge": 9999}), "makes no sense"),
        (lambda folder: edit_json(folder / "preprocessor_config.json", image_processor_type=["a"]), "is not one of"),
    ],
)
def test_broken_folders_get_a_sentence(tmp_path: Path, change: Callable[[Path], object], words: str) -> None:
    folder = save_clip(tmp_path / "clip")
    change(folder)
    with pytest.raises(UserError, match=words) as refusal:
        load_clip(folder, "broken")
    assert "; " in str(refusal.value) and len(str(refusal.value)) < 700


def test_pictures_that_are_too_small_for_the_network_are_noticed_when_it_is_loaded(tmp_path: Path) -> None:
    folder = save_dinov2(tmp_path / "dinov2")
    edit_json(folder / "preprocessor_config.json", crop_size={"height": 4, "width": 32})
    with pytest.raises(UserError, match="does not go with its network"):
        load_look(folder, "broken")


def test_kinds_are_told_apart(tmp_path: Path, clip_folder: Path) -> None:
    dino = save_dino(tmp_path / "dino")
    assert (kind_of(clip_folder), kind_of(dino), kind_of(tmp_path)) == ("clip", "vit", "")
    with pytest.raises(UserError, match='is of the type "vit", where one of clip is needed'):
        load_clip(dino, "dino")
    with pytest.raises(UserError, match='is of the type "clip", where one of vit, dinov2'):
        load_look(clip_folder, "clip")
