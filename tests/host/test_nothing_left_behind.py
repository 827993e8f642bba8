"""After any training, failure or stop: the graph's MODEL and CLIP as before, and no tensor of the training alive."""

from __future__ import annotations

import ctypes
import gc
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from support.models.training_case import Loaded, sample, short_config, short_tuning, train, tune

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = ["textual_inversion", "custom_diffusion", "dreambooth"]
EMBEDDINGS = "embeddings"


@dataclass(frozen=True, eq=False)
class Before:
    """The models and the process before any training of this module."""

    parameters: dict[str, torch.Tensor]
    picture: torch.Tensor
    tensor_bytes: int
    resident_bytes: int


def parameters(loaded: Loaded) -> dict[str, torch.Tensor]:
    model, clip, _ = loaded
    return {
        f"{owner} {name}": parameter
        for owner, module in (("model", model.model), ("clip", clip.cond_stage_model))
        for name, parameter in module.named_parameters()
    }


def tensor_bytes() -> int:
    """Memory that the tensors of this process hold."""
    gc.collect()
    storages = {}
    for found in gc.get_objects():
        if issubclass(type(found), torch.Tensor):
            storages[found.untyped_storage().data_ptr()] = found.untyped_storage().nbytes()
    return sum(storages.values())


def resident_bytes() -> int:
    """Memory of this process, after what is free has been given back to the system."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.fixture(scope="module")
def before(loaded: Loaded) -> Before:
    model, clip, vae = loaded
    picture = sample(model, clip)
    with torch.inference_mode():
        vae.encode(torch.zeros(1, 64, 64, 3))
    values = {name: parameter.detach().clone() for name, parameter in parameters(loaded).items()}
    return Before(values, picture, tensor_bytes(), resident_bytes())


def run(loaded: Loaded, method: str, folder: Path, class_images: bool = True, **options: Any) -> None:
    """Train two steps; where `class_images` is off they are made, if the method has any."""
    if method == "textual_inversion":
        train(loaded, short_config(steps=2), embedding_folder=folder / EMBEDDINGS, **options)
    else:
        given = {} if class_images else {"class_images": None}
        tune(loaded, short_tuning(method), embedding_folder=folder / EMBEDDINGS, **given, **options)


@contextmanager
def hooked(hook: Any) -> Iterator[None]:
    try:
        yield
    finally:
        hook.remove()


def finish(loaded: Loaded, method: str, folder: Path) -> None:
    run(loaded, method, folder)


def fail_after_a_step(loaded: Loaded, method: str, folder: Path) -> None:
    def fail(step: int, losses: Any) -> None:
        raise RuntimeError("something broke")

    with pytest.raises(RuntimeError, match="something broke"):
        run(loaded, method, folder, on_step=fail)


def fail_in_the_forward_pass(loaded: Loaded, method: str, folder: Path) -> None:
    def fail(module: Any, inputs: Any, output: Any) -> None:
        if torch.is_grad_enabled():
            raise RuntimeError("something broke")

    last = loaded[0].model.diffusion_model.out
    with hooked(last.register_forward_hook(fail)), pytest.raises(RuntimeError, match="something broke"):
        run(loaded, method, folder)


def fail_in_the_backward_pass(loaded: Loaded, method: str, folder: Path) -> None:
    def fail(gradient: torch.Tensor) -> None:
        raise RuntimeError("something broke")

    def watch(module: Any, inputs: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(fail)

    block = loaded[0].model.diffusion_model.middle_block[0]
    with hooked(block.register_forward_hook(watch)), pytest.raises(RuntimeError, match="something broke"):
        run(loaded, method, folder)


def stop_at_once(loaded: Loaded, method: str, folder: Path) -> None:
    """Press stop while the network runs for the first time: in a class picture, or in the first step."""
    import comfy.model_management

    def press_stop(module: Any, inputs: Any) -> None:
        comfy.model_management.interrupt_current_processing()

    stopped = comfy.model_management.InterruptProcessingException
    with hooked(loaded[0].model.diffusion_model.register_forward_pre_hook(press_stop)), pytest.raises(stopped):
        run(loaded, method, folder, class_images=False)


def fill_the_disk_at_the_end(loaded: Loaded, method: str, folder: Path) -> None:
    from compinv_core.basics.errors import UserError

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step: int, losses: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    try:
        with pytest.raises(UserError, match=r"The disk is full: my-cat\.safetensors"):
            run(loaded, method, folder, on_step=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in folder.rglob("*") if path.is_file()]


WAYS = [
    finish,
    fail_after_a_step,
    fail_in_the_forward_pass,
    fail_in_the_backward_pass,
    stop_at_once,
    fill_the_disk_at_the_end,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_left_behind(
    loaded: Loaded, before: Before, tmp_path: Path, method: str, way: Callable[[Loaded, str, Path], None]
) -> None:
    import comfy.model_management

    model, clip, _ = loaded

    way(loaded, method, tmp_path)

    assert torch.equal(sample(model, clip), before.picture)
    after = parameters(loaded)
    # The host never writes the text projection, which SD1 checkpoints lack: its memory may hold NaN, equal to nothing.
    assert after.keys() == before.parameters.keys() and all(
        torch.allclose(value, before.parameters[name], rtol=0, atol=0, equal_nan=True) for name, value in after.items()
    )
    assert not any(value.requires_grad or value.grad is not None for value in after.values())
    modules = [*model.model.modules(), *clip.cond_stage_model.modules()]
    hooks = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks")
    assert not any("forward" in vars(module) or any(getattr(module, kind) for kind in hooks) for module in modules)
    assert not model.patches and not model.object_patches and not model.wrappers and not clip.patcher.patches
    assert comfy.model_management.in_training is False
    # Numbers of a few bytes may stay, a trained weight may not.
    assert tensor_bytes() - before.tensor_bytes < 1000
    assert resident_bytes() < 1.05 * before.resident_bytes
