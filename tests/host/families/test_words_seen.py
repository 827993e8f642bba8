"""Words of SDXL and Stable Diffusion 2 looked at and repaired, and words of photos of several sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from support import host
from support.models.families import FamilyCase
from support.models.training_case import short_tuning

pytestmark = pytest.mark.usefixtures("one_thread")
INSPECT, ADJUST = "Inspect Embedding", "Adjust Embedding"


@pytest.fixture
def stranger(case: FamilyCase) -> str:
    """A word of another trainer, in half precision: long, and at no noun."""
    host.start()
    from compinv_core.host.folders import embedding_folder

    vectors = case.parts(torch.randn(2, case.width, generator=torch.Generator().manual_seed(3)) * 0.3)
    name = f"stranger-{case.kind}.safetensors"
    save_file({key: part.half() for key, part in vectors.items()}, embedding_folder() / name)
    return name


def test_a_word_is_inspected_in_each_text_encoder(case: FamilyCase, stranger: str) -> None:
    from compinv_core.host.semantic.words import chosen_word, inspect_word
    from compinv_core.host.text.encoder import load_anchors

    model, clip, _ = case.loaded
    with torch.inference_mode():
        word = chosen_word(clip, stranger, None, INSPECT)
        anchors = load_anchors(clip, ["dog", "bird"])
        found, picture, report = inspect_word(clip, word, anchors, "cat", model)
    names = list(case.widths) if len(case.widths) > 1 else [""]
    assert [(number, facts.encoder) for number, facts in found.numbered()] == [
        (number, name) for name in names for number in (1, 2)
    ]
    assert picture.shape[0] == len(names) and len(report.rows) == 2 * len(names)
    assert all(-1 <= facts.cosine < 0.5 and facts.norm > 2 * facts.usual_norm for facts in found.vectors)
    assert found.composition is not None and 0 < found.composition.score <= 1
    assert all(f" in {name}:" in found.text for name in names if name)
    assert "has left the nouns" in found.verdict


def test_a_word_is_repaired_in_each_text_encoder(case: FamilyCase, stranger: str) -> None:
    from compinv_core.host.folders import embedding_folder
    from compinv_core.host.semantic.words import adjust_word, chosen_word
    from compinv_core.host.text.encoder import load_anchors

    _, clip, _ = case.loaded
    with torch.inference_mode():
        word = chosen_word(clip, stranger, None, ADJUST)
        whole = adjust_word(clip, word, None, "cat", 1.0, 1.0, f"whole-{case.kind}")
        noun = load_anchors(clip, ["cat"]).vectors
    assert whole.vectors is not None
    # Turned all the way, and as long as its noun in each text encoder, it is the noun.
    torch.testing.assert_close(whole.vectors, noun.repeat(2, 1), rtol=1e-4, atol=1e-5)
    file = load_file(embedding_folder() / f"whole-{case.kind}.safetensors")
    assert {key: tuple(value.shape) for key, value in file.items()} == {key: (2, w) for key, w in case.widths.items()}


@pytest.mark.parametrize("family", ["SD1", "SDXL"])
def test_masks_that_nobody_painted_are_left_out(family: str) -> None:
    from compinv_core.basics.errors import Remarks, remarks_to
    from compinv_core.host import family as families
    from compinv_core.host.learning.concepts import checked_photos
    from compinv_core.learning.concept import Concept

    # As Load Image gives them.
    photos, blank = [torch.rand(1, 96, 96, 3)] * 2, [torch.zeros(1, 64, 64)] * 2
    concept = Concept.to_learn({"name": "my-cat", "superclass": "cat"}, photos, blank)
    said = Remarks()
    with remarks_to(said):
        assert checked_photos(getattr(families, family), concept).masks is None
    ((sentence, severity),) = said.said
    assert sentence.startswith("No photo of my-cat has a mask") and severity == "note"


def test_photos_masks_and_class_pictures_of_several_sizes_train(sdxl: FamilyCase, tmp_path: Path) -> None:
    from compinv_core.host.family import SDXL
    from compinv_core.host.learning.concepts import checked_photos
    from compinv_core.host.learning.train import Places, train_concepts
    from compinv_core.learning.concept import Concept

    generator = torch.Generator().manual_seed(2)
    photos = [torch.rand(1, height, width, 3, generator=generator) for height, width in ((64, 96), (96, 64), (64, 96))]
    masks = [torch.zeros(photo.shape[:3]) for photo in photos]
    for mask in masks:
        mask[:, 16:48, 16:48] = 1.0
    given = torch.rand(2, 64, 64, 3, generator=generator)
    concept = Concept.to_learn({"name": "wide-cat", "superclass": "cat"}, photos, masks, given)
    checked = checked_photos(SDXL, concept)
    assert [tuple(batch.shape) for batch in checked.photos] == [(2, 64, 96, 3), (1, 96, 64, 3)]
    assert checked.masks is not None and [len(mask) for mask in checked.masks] == [2, 1]
    assert torch.equal(checked.photos[0][1:], photos[2]) and checked.frames == ((64, 96, 0, 0), (96, 64, 0, 0))

    case = short_tuning("custom_diffusion", steps=4, train_rank=4)

    def run(places: Places | None = None, **options: Any) -> Any:
        with torch.inference_mode():
            return train_concepts(*sdxl.loaded, case.config, [concept], None, places, **options)

    whole = run()
    assert torch.tensor(whole.losses).isfinite().all() and len(whole.history["prior"]) == 4
    kept = run(Places(run=tmp_path))
    again = run(Places(run=tmp_path))
    assert kept.history == whole.history == again.history
    assert all(torch.equal(value, whole.lora[name]) for name, value in again.lora.items())


def test_photos_of_several_sizes_are_refused_where_the_model_is_not_told() -> None:
    host.start()
    from compinv_core.basics.errors import UserError
    from compinv_core.host.family import SD2
    from compinv_core.host.learning.concepts import checked_photos
    from compinv_core.learning.concept import Concept

    photos = [torch.rand(1, 64, 96, 3), torch.rand(1, 96, 64, 3)]
    with pytest.raises(UserError, match="different sizes"):
        checked_photos(SD2, Concept.to_learn({"name": "wide-cat", "superclass": "cat"}, photos))
