"""Which models and text encoders are of a family, and which are refused."""

from __future__ import annotations

import re

import pytest

from support import host
from support.models.families import FAMILIES, FamilyCase
from support.models.training_case import load_as_executor

host.start()

NODE = "Test Node"
NAMES = {"tiny": "Stable Diffusion 1", **{kind: case.name for kind, case in FAMILIES.items()}}


def refused(model: object = None, clip: object = None) -> str:
    """The sentence that refuses them."""
    from compinv_core.basics.errors import UserError
    from compinv_core.host.family import Family

    with pytest.raises(UserError) as caught:
        Family.of(NODE, model, clip)  # type: ignore[arg-type]
    sentence = str(caught.value)
    assert sentence.startswith(f"{NODE}: ") and sentence.endswith(".") and "\n" not in sentence
    assert len(re.findall(r"[.!?](?=\s|$)", sentence)) == 1, sentence
    return sentence


def test_a_family_is_known_by_its_model_its_text_encoder_or_both(case: FamilyCase) -> None:
    from compinv_core.host.family import Family

    model, clip, _ = case.loaded
    family = Family.of(NODE, model, clip)
    assert family.name == case.name
    assert Family.of(NODE, model) is family and Family.of(NODE, clip=clip) is family
    assert {encoder.embedding_key: encoder.width for encoder in family.text_encoders} == case.widths
    assert [encoder.embedding_key for encoder in family.text_encoders] == list(case.widths)
    assert [e.embedding_key for e in family.text_encoders if e.gives_pooled] == ([case.pooled] if case.pooled else [])
    assert family.latent_channels == 4 and family.pixels_per_cell == 8


@pytest.mark.parametrize("kind", ["sdxl_v", "sd2_v"])
def test_models_that_predict_velocity_are_of_the_family_too(kind: str) -> None:
    from compinv_core.host.family import Family, predicts_velocity

    model, _, _ = host.load_anew(kind)
    assert Family.of(NODE, model).name == NAMES[kind.removesuffix("_v")]
    assert predicts_velocity(model.get_model_object("model_sampling"))


@pytest.mark.parametrize("choice", ["middle and first up", "middle", "first up", "all up"])
def test_every_choice_of_blocks_has_cross_attention(case: FamilyCase, choice: str) -> None:
    from compinv_core.host.family import Family
    from compinv_core.host.unet_blocks import transformer_blocks

    model, _, _ = case.loaded
    unet = model.model.diffusion_model
    blocks = Family.of(NODE, model).blocks(unet, choice)
    # SDXL looks at words in its two lower levels, Stable Diffusion 2 in its three upper ones.
    first, last = {"sdxl": ([0, 1, 2], [3, 4, 5]), "sd2": ([3, 4, 5], [6, 7, 8, 9, 10, 11])}[case.kind]
    middle, up = [("middle", 0)], [("output", index) for index in first]
    expected = {
        "middle and first up": middle + up,
        "middle": middle,
        "first up": up,
        "all up": up + [("output", index) for index in last],
    }
    assert list(blocks) == expected[choice]
    assert all(transformer_blocks(unet, block) for block in blocks)


@pytest.mark.parametrize("kind", ["refiner", "unclip"])
def test_other_models_are_refused(kind: str) -> None:
    sentence = refused(host.load_anew(kind)[0])
    assert all(name in sentence for name in NAMES.values()) and "`model`" in sentence


@pytest.mark.parametrize(
    ("model", "clip"), [("sdxl", "sd2"), ("sd2", "sdxl"), ("sdxl", "tiny"), ("tiny", "sdxl"), ("sd2", "tiny")]
)
def test_a_text_encoder_of_another_family_is_refused(model: str, clip: str) -> None:
    sentence = refused(load_as_executor(model)[0], load_as_executor(clip)[1])
    assert "`clip`" in sentence and NAMES[model] in sentence
