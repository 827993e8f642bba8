"""Custom Diffusion and DreamBooth when something goes wrong: stopped, killed, out of room, given what does not fit."""

from __future__ import annotations

import ctypes
import gc
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from support import locations
from support.training_case import Loaded, photos, sample, short_tuning, tune

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = ["custom_diffusion", "dreambooth"]
STEPS = 5
TRAINING_SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from support import host
host.start()
import torch
torch.set_num_threads(1)
from support.training_case import load_as_executor, short_tuning, tune
tune(load_as_executor(), short_tuning(sys.argv[2], steps=50), run_dir=Path(sys.argv[1]),
     on_step=lambda step, losses: print("step", step, flush=True))
"""


def resident_bytes() -> int:
    """Memory of this process, after what is free has been given back to the system."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_left_behind(loaded: Loaded, method: str) -> None:
    import comfy.model_management

    model, clip, _ = loaded
    tune(loaded, short_tuning(method, steps=1))
    picture, memory = sample(model, clip), resident_bytes()
    objects = dict(model.model.named_parameters())
    values = {name: value.detach().clone() for name, value in objects.items()}
    cloned = sum(value.nbytes for value in values.values())

    def fail(step: int, losses: Any) -> None:
        raise RuntimeError("something broke")

    def press_stop(step: int, losses: Any) -> None:
        comfy.model_management.interrupt_current_processing()

    tune(loaded, short_tuning(method))
    with pytest.raises(RuntimeError, match="something broke"):
        tune(loaded, short_tuning(method), on_step=fail)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        tune(loaded, short_tuning(method), on_step=press_stop)

    assert torch.equal(sample(model, clip), picture)
    after = dict(model.model.named_parameters())
    assert all(after[name] is value and torch.equal(value, values[name]) for name, value in objects.items())
    assert not any(value.requires_grad or value.grad is not None for value in after.values())
    assert not model.patches and comfy.model_management.in_training is False
    assert resident_bytes() - cloned < 1.05 * memory


@pytest.mark.parametrize("method", METHODS)
def test_killed_at_a_random_step_and_resumed_gives_the_same_bits(loaded: Loaded, tmp_path: Path, method: str) -> None:
    step = random.randint(1, STEPS - 1)
    script = TRAINING_SCRIPT.format(tests=str(locations.REPOSITORY / "tests"))
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), method], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        if line.strip() == f"step {step}":
            process.send_signal(signal.SIGKILL)
            break
    process.wait(60)
    assert process.returncode == -signal.SIGKILL, process.stderr.read()
    steps: list[int] = []
    resumed = tune(
        loaded, short_tuning(method, steps=STEPS), run_dir=tmp_path, on_step=lambda s, losses: steps.append(s)
    )
    assert steps[0] in (step, step + 1) and steps[-1] == STEPS  # killed before or after a save
    straight = tune(loaded, short_tuning(method, steps=STEPS))
    assert resumed.history == straight.history
    assert torch.equal(resumed.concepts[0].vectors, straight.concepts[0].vectors)
    assert resumed.lora.keys() == straight.lora.keys()
    assert all(torch.equal(resumed.lora[name], straight.lora[name]) for name in straight.lora)


def test_a_full_disk_keeps_the_state_and_the_run_goes_on_later(loaded: Loaded, tmp_path: Path) -> None:
    from safetensors import safe_open

    from compinv_core.errors import UserError

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

    from compinv_core.concept_images import ConceptImages
    from compinv_core.errors import UserError

    def press_stop(step: int, losses: Any) -> None:
        comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        tune(loaded, short_tuning("custom_diffusion"), run_dir=tmp_path, on_step=press_stop)
    dog = ConceptImages((photos(),), "my-dog", "dog")
    for options, sentence in (
        ({"class_images": 1 - photos()}, "differs in class images"),
        ({"more_concepts": dog}, "class images 2, images 2, mask 2, words 2"),
    ):
        with pytest.raises(UserError, match=sentence):
            tune(loaded, short_tuning("custom_diffusion"), run_dir=tmp_path, **options)
    with pytest.raises(UserError, match="differs in .*method"):
        tune(loaded, short_tuning("dreambooth"), run_dir=tmp_path)


def other_photos(name: str, side: int = 64, class_side: int = 0) -> Any:
    from compinv_core.concept_images import ConceptImages

    pictures = (torch.rand(2, class_side, class_side, 3),) if class_side else None
    return ConceptImages((torch.rand(1, side, side, 3),), name, "dog", class_images=pictures)


BAD_INPUTS = [
    ({}, {"class_images": torch.rand(2, 64, 72, 3)}, "class_images are 72x64 but the images are 64x64"),
    ({"num_class_images": 3}, {}, "class_images holds 2 pictures and num_class_images asks for 3"),
    ({}, {"more": ("my-cat", 64)}, "Two concepts have the name 'my-cat'"),
    ({}, {"more": ("My-Cat", 64)}, "Two concepts have the name 'My-Cat'"),
    ({}, {"more": ("my-dog", 128)}, r"different sizes \(my-cat 64x64, my-dog 128x128\)"),
    ({}, {"more": ("my-dog", 64, 72)}, "class_images of my-dog are 72x72 but the images are 64x64"),
    ({"class_prompt": "cat " * 80}, {}, "class_prompt is 5 tokens too long"),
    ({"preview_every": 1, "preview_prompt": "a photo of cat"}, {}, "preview_prompt: 'a photo of cat' must hold"),
    ({"preview_every": 1, "preview_prompt": "word " * 80 + "{}"}, {}, "preview_prompt: .* tokens too long"),
    ({"templates": ("word " * 80 + "{}",)}, {}, "custom_templates: .* tokens too long"),
    ({"num_vectors": 75}, {}, "template: .* with 75 vectors is .* lower num_vectors"),
    ({"batch_size": 1_000_000}, {}, r"needs about \d+\.\d GB .* GB are free on cpu; choose the optimizer adafactor"),
    ({"optimizer": "adamw_8bit"}, {}, "choose adafactor"),
]


@pytest.mark.parametrize(("settings", "options", "sentence"), BAD_INPUTS)
def test_bad_input_gets_a_sentence_before_any_work(
    loaded: Loaded, settings: dict[str, Any], options: dict[str, Any], sentence: str
) -> None:
    from compinv_core.errors import UserError

    options = dict(options)
    if "more" in options:
        options["more_concepts"] = other_photos(*options.pop("more"))
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

    from compinv_core.errors import UserError

    path = tmp_path / "my-cat.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="already exists among your LoRAs"):
        tune(loaded, short_tuning("custom_diffusion"), lora_path=path)
    assert path.read_bytes() == before
