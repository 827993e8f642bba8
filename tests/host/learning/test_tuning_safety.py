"""Custom Diffusion and DreamBooth when something goes wrong: stopped, out of room, given what does not fit."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from support.models.training_case import Loaded, photos, short_tuning, tune

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_full_disk_keeps_the_state_and_the_run_goes_on_later(loaded: Loaded, tmp_path: Path) -> None:
    from safetensors import safe_open

    from compinv_core.basics.errors import UserError

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    config = short_tuning("custom_diffusion", steps=4, prior_weight=0.0)

    def fill_the_disk(step: int, losses: Any) -> None:
        if step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))

    try:
        with pytest.raises(UserError, match=r"The disk is full: state\.safetensors could not be written"):
            tune(loaded, config, run_dir=tmp_path, on_step=fill_the_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with safe_open(tmp_path / "state.safetensors", "pt") as file:
        assert '"step": 1' in file.metadata()["run"]
    assert not list(tmp_path.glob(".*"))
    steps: list[int] = []
    resumed = tune(loaded, config, run_dir=tmp_path, on_step=lambda step, losses: steps.append(step))
    assert steps == [2, 3, 4] and resumed.history == tune(loaded, config).history


def test_an_unfinished_run_is_not_lost_to_other_inputs(loaded: Loaded, tmp_path: Path) -> None:
    import comfy.model_management

    from compinv_core.basics.errors import UserError
    from compinv_core.learning.concept import Concept

    def press_stop(step: int, losses: Any) -> None:
        comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        tune(loaded, short_tuning("custom_diffusion"), run_dir=tmp_path, on_step=press_stop)
    dog = Concept("my-dog", "dog", photos=(photos(),))
    for options, sentence in (
        ({"class_images": 1 - photos()}, "differs in class images"),
        ({"more_concepts": (dog,)}, "class images 2, images 2, mask 2, words 2"),
    ):
        with pytest.raises(UserError, match=sentence):
            tune(loaded, short_tuning("custom_diffusion"), run_dir=tmp_path, **options)
    with pytest.raises(UserError, match="differs in .*method"):
        tune(loaded, short_tuning("dreambooth"), run_dir=tmp_path)


def other_photos(name: str, side: int = 64, class_side: int = 0) -> Any:
    from compinv_core.learning.concept import Concept

    pictures = (torch.rand(2, class_side, class_side, 3),) if class_side else None
    return Concept(name, "dog", photos=(torch.rand(1, side, side, 3),), class_images=pictures)


BAD_INPUTS = [
    ({}, {"class_images": torch.rand(2, 64, 72, 3)}, "class_images are 72x64 but the images are 64x64"),
    ({"num_class_images": 3}, {}, "class_images holds 2 pictures and num_class_images asks for 3"),
    ({}, {"more": ("my-cat", 64)}, 'Two concepts have the name "my-cat"'),
    ({}, {"more": ("My-Cat", 64)}, 'Two concepts have the name "My-Cat"'),
    ({}, {"more": ("my-dog", 128)}, r"different sizes \(my-cat 64x64, my-dog 128x128\)"),
    ({}, {"more": ("my-dog", 64, 72)}, "class_images of my-dog are 72x72 but the images are 64x64"),
    ({"class_prompt": "cat " * 80}, {}, "class_prompt is 5 tokens too long"),
    ({"preview_every": 1, "preview_prompt": "a photo of cat"}, {}, 'preview_prompt: "a photo of cat" must hold'),
    ({"preview_every": 1, "preview_prompt": "word " * 80 + "{}"}, {}, "preview_prompt: .* tokens too long"),
    ({"templates": ("word " * 80 + "{}",)}, {}, "custom_templates: .* tokens too long"),
    ({"num_vectors": 75}, {}, "template: .* with 75 vectors is .* lower num_vectors"),
    (
        {"batch_size": 64},
        {"images": torch.rand(1, 1024, 1024, 3), "class_images": torch.rand(2, 1024, 1024, 3)},
        r"needs about \d+\.\d GB .* GB are free on cpu; choose the optimizer adafactor",
    ),
    ({"optimizer": "adamw_8bit"}, {}, "choose adafactor"),
]


@pytest.mark.parametrize(("settings", "options", "sentence"), BAD_INPUTS)
def test_bad_input_gets_a_sentence_before_any_work(
    loaded: Loaded, settings: dict[str, Any], options: dict[str, Any], sentence: str
) -> None:
    from compinv_core.basics.errors import UserError

    options = dict(options)
    if "more" in options:
        options["more_concepts"] = (other_photos(*options.pop("more")),)
    with pytest.raises(UserError, match=sentence) as caught:
        tune(
            loaded,
            short_tuning("dreambooth", **settings),
            on_step=lambda step, losses: pytest.fail("trained"),
            **options,
        )
    assert str(caught.value).count(". ") == 0


def test_another_programs_lora_is_never_overwritten(loaded: Loaded, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from compinv_core.basics.errors import UserError

    path = tmp_path / "my-cat.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="already exists among your LoRAs"):
        tune(loaded, short_tuning("custom_diffusion"), lora_path=path)
    assert path.read_bytes() == before


def test_replacing_a_word_that_another_method_learned_is_said(
    loaded: Loaded, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from compinv_core.basics.errors import UserError
    from compinv_core.learning.concept import Concept
    from compinv_core.learning.embedding_file import MAKER_KEY, write_concept

    for name, method in (("my-cat", "DreamBooth"), ("my-dog", "Custom Diffusion with semantic inversion")):
        facts = {MAKER_KEY: "1", "method": method}
        write_concept(Concept(name, "cat", torch.zeros(1, 768), facts), tmp_path / f"{name}.safetensors")
        with pytest.raises(UserError, match="class_images holds"):
            tune(loaded, short_tuning("custom_diffusion", name=name, num_class_images=3), embedding_folder=tmp_path)
    said = [record.message for record in caplog.records if "will be replaced" in record.message]
    assert len(said) == 1 and said[0].startswith("my-cat.safetensors was learned by DreamBooth")


def test_stopped_while_the_rank_is_cut_down_keeps_the_training(loaded: Loaded, tmp_path: Path) -> None:
    import comfy.model_management

    config, steps = short_tuning("dreambooth", prior_weight=0.0), []

    def press_stop(step: int, losses: Any) -> None:
        steps.append(step)
        if step == config.config.steps:
            comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        tune(loaded, config, run_dir=tmp_path, on_step=press_stop)
    assert tune(loaded, config, run_dir=tmp_path, on_step=press_stop).lora and steps == [1, 2]


def test_encoding_shows_progress_and_stops_within_a_picture(loaded: Loaded) -> None:
    import comfy.model_management
    import comfy.utils

    shown: list[tuple[int, int]] = []

    def press_stop(value: int, total: int, preview: Any, node_id: Any = None) -> None:
        shown.append((value, total))
        comfy.model_management.interrupt_current_processing()

    comfy.utils.set_progress_bar_global_hook(press_stop)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            tune(loaded, short_tuning("custom_diffusion"))
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    assert shown == [(0, 2)]
