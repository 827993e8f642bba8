"""Weights in training in the real host: float32 copies, their casts in half precision, the originals, and factors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from compinv_core.training.low_rank import LowRank
from support import checkpoints, host
from support.models.training_case import Loaded, sample, short_tuning, tune

pytestmark = pytest.mark.usefixtures("one_thread")
NAME = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
RANK = 4
METHODS = ["custom_diffusion", "dreambooth"]


@pytest.fixture
def half(loaded: Loaded) -> Loaded:
    """The models, computing in bfloat16 as the host's Model Compute Dtype node has it."""
    model, clip, vae = loaded
    model = model.clone()
    model.set_model_compute_dtype(torch.bfloat16)
    return model, clip, vae


@pytest.fixture
def pictures() -> Iterator[list[Any]]:
    """The previews shown while the test runs."""
    import comfy.utils

    shown: list[Any] = []

    def show(value: int, total: int, preview: Any, node_id: Any = None) -> None:
        if preview is not None:
            shown.append(preview[1].tobytes())

    comfy.utils.set_progress_bar_global_hook(show)
    yield shown
    comfy.utils.set_progress_bar_global_hook(None)


def one_pass(session: Any) -> torch.Tensor:
    from compinv_core.learning.condition import Condition

    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=generator)
    context = torch.randn(1, 77, 768, generator=generator)
    return session.denoise(latents, noise, torch.tensor([500]), Condition(context))[0]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_half_precision_trains_float32_copies_through_their_casts(half: Loaded, checkpointing: bool) -> None:
    from compinv_core.host.learning.session import training_session

    model, clip, _ = half
    network = model.model.diffusion_model
    with training_session(model, clip, (1, 4, 8, 8)):
        pass  # leaves ordinary parameters in the place of the executor's, over the same memory
    originals = dict(network.named_parameters())
    with training_session(model, clip, (1, 4, 8, 8), lambda name: True, checkpointing) as (session, _):
        parameters = session.weights.parameters
        assert parameters.keys() == originals.keys() and all(p.dtype == torch.float32 for p in parameters.values())
        before = one_pass(session)
        assert before.dtype == torch.bfloat16
        before.float().square().mean().backward()
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in parameters.values())
        # Too small a change for bfloat16 to hold beside the weight, again and again, until together they show.
        weight, gradient = parameters[NAME], parameters[NAME].grad
        assert gradient is not None and gradient.abs().max() > 0
        change = 2.0**-11 * weight.detach().abs()
        for _ in range(16):
            weight.data += change
        after = one_pass(session)
        assert torch.equal(network.get_submodule(NAME.removesuffix(".weight")).weight, weight.to(torch.bfloat16))
        assert not torch.equal(after, before)
    restored = dict(network.named_parameters())
    assert restored.keys() == originals.keys() and all(restored[name] is originals[name] for name in originals)


@pytest.mark.parametrize("rank", [0, RANK])
def test_checkpointing_changes_no_bit_in_half_precision(half: Loaded, rank: int) -> None:
    plain, twice = (
        tune(half, short_tuning("dreambooth", prior_weight=0.0, train_rank=rank, gradient_checkpointing=choice))
        for choice in (False, True)
    )
    assert plain.losses == twice.losses
    assert all(torch.equal(plain.lora[name], twice.lora[name]) for name in plain.lora)


@pytest.mark.parametrize("rank", [0, RANK])
def test_a_preview_in_half_precision_shows_the_last_update(half: Loaded, pictures: list[Any], rank: int) -> None:
    # One step at two rates of the weights, and the same small one of the word: only the update tells them apart.
    for rate in (1e-9, 1e-2):
        config = short_tuning(
            "custom_diffusion", steps=1, learning_rate=rate, token_learning_rate=1e-9, prior_weight=0.0,
            preview_every=1, train_rank=rank,
        )  # fmt: skip
        tune(half, config)
    slow, fast = pictures
    assert slow != fast


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    """The weights that a MODEL computes with."""
    import comfy.model_management

    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model], force_full_load=True)
        return {name: value.detach().clone() for name, value in model.model.diffusion_model.named_parameters()}


def moved_weights(before: Any, after: Any) -> set[str]:
    first, second = weights_of(before), weights_of(after)
    return {name for name in first if not torch.equal(first[name], second[name])}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_factors_are_trained_beside_weights_that_stay(loaded: Loaded, dtype: torch.dtype, checkpointing: bool) -> None:
    from compinv_core.host.learning.session import training_session

    model, clip = loaded[0].clone(), loaded[1]
    model.set_model_compute_dtype(dtype)
    network = model.model.diffusion_model
    with training_session(model, clip, (1, 4, 8, 8)) as (session, _), torch.no_grad():
        untrained = one_pass(session)
    originals = dict(network.named_parameters())
    low_rank = LowRank(RANK, 0)
    opened = training_session(model, clip, (1, 4, 8, 8), lambda name: True, checkpointing, low_rank)
    with opened as (session, _):
        factors = session.weights.parameters
        assert all(p.dtype == torch.float32 and p.shape[0 if name.endswith("down") else 1] == RANK
                   for name, p in factors.items())  # fmt: skip
        # They begin as nothing.
        assert torch.equal(one_pass(session), untrained)
        for name, factor in factors.items():
            if name.endswith(".up"):
                factor.data += 0.01
        changed = one_pass(session)
        assert changed.dtype == dtype and not torch.equal(changed, untrained)
        (2.0**7 * changed.float().square().mean()).backward()
        for name, factor in factors.items():
            assert factor.grad is not None and factor.grad.isfinite().all() and factor.grad.any(), name
        if dtype == torch.float32:
            assert all(network.get_parameter(name) is original for name, original in originals.items())
        assert not any(parameter.requires_grad for parameter in network.parameters())
    restored = dict(network.named_parameters())
    assert restored.keys() == originals.keys() and all(restored[name] is originals[name] for name in originals)
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("method", METHODS)
def test_model_file_and_network_in_training_are_the_same(loaded: Loaded, tmp_path: Path, method: str) -> None:
    import folder_paths
    from safetensors import safe_open
    from safetensors.torch import save_file

    import nodes
    from compinv_core.host.learning.session import training_session
    from compinv_core.learning.embedding_file import MAKER_KEY

    network, in_training = loaded[0].model.diffusion_model, list[torch.Tensor]()

    def evaluated() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        latents, context = (torch.randn(shape, generator=generator) for shape in ((1, 4, 8, 8), (1, 77, 768)))
        with torch.no_grad():
            return network(latents, torch.tensor([500.0]), context=context)

    def listen(step: int, losses: Any) -> None:
        if step == 3:
            in_training.append(evaluated())

    path = tmp_path / f"{method}-low-rank.safetensors"
    options = {"lora_path": path} if method == "custom_diffusion" else {}
    case = short_tuning(method, steps=3, prior_weight=0.0, learning_rate=1e-2, train_rank=RANK)
    result = tune(loaded, case, on_step=listen, **options)
    if method == "custom_diffusion":
        with safe_open(path, "pt") as file:
            assert file.metadata()[MAKER_KEY] and file.metadata()["train_rank"] == str(RANK)
            assert all(torch.equal(file.get_tensor(name), value) for name, value in result.lora.items())
    else:
        save_file(result.lora, path)
    folder_paths.add_model_folder_path("loras", str(tmp_path))
    with torch.inference_mode():
        (reloaded,) = nodes.LoraLoaderModelOnly().load_lora_model_only(loaded[0], path.name, 1.0)
    theirs, ours = weights_of(reloaded), weights_of(result.model)
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    assert torch.equal(sample(reloaded, loaded[1]), sample(result.model, loaded[1]))

    moved = moved_weights(loaded[0], result.model)
    if method == "custom_diffusion":
        assert moved == {name for name in ours if ".attn2.to_k." in name or ".attn2.to_v." in name}
    else:
        matrices = {name for name, value in ours.items() if value.ndim > 1}
        assert moved == {name for name in matrices if name.startswith(("input_blocks.1", "middle", "output"))}
    with training_session(result.model, loaded[1], (1, 4, 8, 8)):
        after = evaluated()
    with training_session(loaded[0], loaded[1], (1, 4, 8, 8)):
        before = evaluated()
    scale = float((after - before).abs().max())
    assert scale > 1e-3 and float((after - in_training[0]).abs().max()) < 1e-4 * max(scale, 1.0)


@pytest.mark.parametrize("method", METHODS)
def test_a_training_of_factors_resumes_to_the_same_bits(loaded: Loaded, tmp_path: Path, method: str) -> None:
    import comfy.model_management

    from compinv_core.basics.errors import UserError

    case = short_tuning(method, steps=3, prior_weight=0.0, train_rank=RANK)
    straight = tune(loaded, case)

    def press_stop(step: int, losses: Any) -> None:
        if step == 2:
            comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        tune(loaded, case, run_dir=tmp_path, on_step=press_stop)
    with pytest.raises(UserError, match="differs in train_rank"):
        tune(loaded, short_tuning(method, steps=3, prior_weight=0.0), run_dir=tmp_path)
    resumed = tune(loaded, case, run_dir=tmp_path)
    assert resumed.history == straight.history
    assert all(torch.equal(resumed.lora[name], value) for name, value in straight.lora.items())
    again = tune(loaded, case, run_dir=tmp_path)
    assert all(torch.equal(again.lora[name], value) for name, value in straight.lora.items())


def test_files_name_the_layers_as_programs_do_that_train_loras() -> None:
    host.start()
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from diffusers import UNet2DConditionModel

    from compinv_core.host.family import SD1
    from compinv_core.host.learning.trained_weights import low_rank_layers

    shape: dict[str, Any] = {**checkpoints.SHARED_UNET, **checkpoints.UNETS["full"]}
    network = UNetModel(**shape, device="meta", operations=comfy.ops.disable_weight_init)
    with torch.device("meta"):
        theirs = UNet2DConditionModel(cross_attention_dim=768)
    modules = dict(theirs.named_modules())
    layers = low_rank_layers(network, lambda name: True)
    names = SD1.lora_modules(shape, layers)
    for own, name in names.items():
        assert modules[name].weight.shape == network.get_submodule(own).weight.shape, (own, name)
    # All but the first and last convolution and the embedding of time.
    matrices = {name for name, module in modules.items() if getattr(module, "weight", torch.zeros(1)).ndim > 1}
    left_out = {"conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"}
    assert matrices - set(names.values()) == left_out
    assert sum(p.weight.numel() for p in layers.values()) > 0.99 * sum(p.numel() for p in network.parameters())


def test_factors_do_not_depend_on_the_family() -> None:
    host.start()
    import comfy.sd

    from compinv_core.host.inference import normalise_parameters
    from compinv_core.host.learning.trained_weights import LowRankWeights
    from compinv_core.learning.lora_file import factor_lora

    with torch.inference_mode():
        path = str(checkpoints.build("sdxl"))
        model = comfy.sd.load_checkpoint_guess_config(path, output_clip=False, output_vae=False)[0]
    network = model.model.diffusion_model
    assert network.label_emb is not None
    before = weights_of(model)

    def evaluated() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        shapes = ((1, 4, 8, 8), (1, 77, 2048), (1, 2816))
        latents, context, y = (torch.randn(shape, generator=generator) for shape in shapes)
        with torch.inference_mode(False), torch.no_grad():
            normalise_parameters(network)
            return network(latents, torch.tensor([500.0]), context=context, y=y)

    plain = evaluated()
    weights = LowRankWeights(network, lambda name: True, LowRank(RANK, 0))
    for name, factor in weights.parameters.items():
        if name.endswith(".up"):
            factor.data.normal_(std=0.02, generator=torch.Generator().manual_seed(len(name)))
    beside = evaluated()
    factors = weights.factors()
    weights.restore()
    assert torch.equal(evaluated(), plain)
    lora = factor_lora(factors, {name: name for name in factors})
    with torch.inference_mode():
        patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)
    after = weights_of(patched)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {f"{n}.weight" for n in factors}
    change = float((beside - plain).abs().max())
    assert change > 1e-2 and float((evaluated() - beside).abs().max()) < 1e-4 * max(change, 1.0)
