"""Gradients through weights that are stored in another type than the model computes in, as on cards."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from support import checkpoints, host
from support.sampling import PROMPT, encode, probe, sample

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = ("host casts", "nobody casts")


@pytest.fixture(scope="module")
def core() -> Any:
    host.start()
    import compinv_core.host.computing as module

    return module


@pytest.fixture
def model() -> Any:
    """A MODEL of its own, whose network the tests change."""
    host.start()
    import comfy.sd

    return comfy.sd.load_checkpoint_guess_config(str(checkpoints.build("tiny")), output_vae=False, output_clip=False)[0]


def linear_layers(network: torch.nn.Module) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, torch.nn.Linear)]


def store_as_half(network: torch.nn.Module, kind: str) -> None:
    """Keep linear layers in half precision, of numbers that it holds exactly, with or without the host's casting."""
    for layer in linear_layers(network):
        layer.comfy_cast_weights = kind == "host casts"
        for name, parameter in list(layer._parameters.items()):
            if parameter is not None:
                layer._parameters[name] = torch.nn.Parameter(parameter.detach().half(), requires_grad=False)


def rounded(network: torch.nn.Module) -> None:
    """Give linear layers the same numbers in the computing type."""
    for layer in linear_layers(network):
        for parameter in layer.parameters():
            parameter.data = parameter.data.half().float()


def guided(model: Any) -> torch.Tensor:
    from compinv_core.boxes.layout import Layout
    from compinv_core.host.spatial.guidance import apply_layout_guidance
    from compinv_core.spatial.settings import GuidanceConfig

    layout = Layout(("a cat", "a ball"), ((0, 0, 0.5, 1), (0.5, 0, 1, 1)), 64, 64)
    config = GuidanceConfig(strength=3000.0, threshold=0.1, max_iterations=2, guided_steps=3)
    with torch.inference_mode():
        return sample(*apply_layout_guidance(model, host.load("tiny")[1], PROMPT, layout, config))


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_through_weights_of_another_type(core: Any, model: Any, kind: str) -> None:
    plain = model.clone()
    network = model.model.diffusion_model
    rounded(network)
    expected = guided(plain)
    store_as_half(network, kind)
    before = dict(network.named_parameters())
    assert torch.equal(guided(model), expected)
    after = dict(network.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())


def test_without_help_such_weights_cannot_be_used(model: Any) -> None:
    store_as_half(model.model.diffusion_model, "nobody casts")
    with pytest.raises(RuntimeError, match="dtype"):
        sample(model, encode())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["textual_inversion", "custom_diffusion", "dreambooth"])
def test_trainings_through_weights_of_another_type(model: Any, method: str, kind: str) -> None:
    from support.models.training_case import short_config, short_tuning, train, tune

    _, clip, vae = host.load("tiny")
    rounded(model.model.diffusion_model)

    def learn() -> Any:
        if method == "textual_inversion":
            return train((model, clip, vae), short_config(steps=2))
        return tune((model, clip, vae), short_tuning(method))

    expected = learn()
    store_as_half(model.model.diffusion_model, kind)
    before = dict(model.model.diffusion_model.named_parameters())
    result = learn()
    assert torch.equal(result.concepts[0].vectors, expected.concepts[0].vectors)
    assert result.history == expected.history
    after = dict(model.model.diffusion_model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_encoder_of_another_type_trains(kind: str) -> None:
    import comfy.sd

    from support.models.training_case import short_config, train

    base = host.start()
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
        str(checkpoints.build("tiny")), embedding_directory=[str(base / "models" / "embeddings")]
    )
    rounded(clip.cond_stage_model)
    expected = train((model, clip, vae), short_config(steps=2)).concepts[0].vectors
    store_as_half(clip.cond_stage_model, kind)
    assert torch.equal(train((model, clip, vae), short_config(steps=2)).concepts[0].vectors, expected)


class ReusedBuffer:
    """Casts as the host does in low memory: into one buffer, which the next layer's cast overwrites."""

    def __init__(self, original: Callable) -> None:
        self._original, self._buffer, self.used = original, torch.zeros(1 << 24), 0

    def __call__(self, layer: Any, value: torch.Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        found = self._original(layer, value, *args, **kwargs)
        if value is None or layer.weight.dtype == value.dtype:
            return found
        self.used += 1
        weight = found[0]
        place = self._buffer[: weight.numel()].view(weight.shape)
        with torch.inference_mode(self._buffer.is_inference()), torch.no_grad():
            place.copy_(weight)
        return (place, *found[1:])


def regional() -> list:
    """CONDITIONING with two phrases in two boxes."""
    import node_helpers

    from compinv_core.host.spatial.objective import REGIONS_KEY, Region

    regions = (Region("a cat", (1, 2), (0, 0, 0.5, 1)), Region("a ball", (4, 5), (0.5, 0, 1, 1)))
    return node_helpers.conditioning_set_values(encode(), {REGIONS_KEY: regions})


def gradient_of(model: Any, positive: list, held: bool) -> torch.Tensor:
    """The gradient of the location loss, with or without the weights held while the graph lives."""
    import contextlib

    from compinv_core.host.family import SD1
    from compinv_core.host.spatial.objective import AttentionObjective
    from compinv_core.spatial.settings import GuidanceConfig

    found = []

    def function(denoiser: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: Any) -> None:
        blocks = SD1.blocks(denoiser.inner_model.inner_model.diffusion_model, "middle and first up")
        objective = AttentionObjective(denoiser, extra_args, blocks, GuidanceConfig())
        opened = objective.open(x.device) if held else contextlib.nullcontext()
        with opened, torch.inference_mode(False), torch.enable_grad():
            leaf = x.clone().requires_grad_(True)
            found.extend(torch.autograd.grad(objective(leaf, sigmas[:1]).sum(), leaf))

    probe(model, positive, function)
    return found[0]


def test_no_graph_holds_a_buffer_that_the_host_uses_again(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.ops

    positive, negative = regional(), encode("")
    monkeypatch.setattr("support.sampling.encode", lambda text: negative)
    rounded(model.model.diffusion_model)
    expected = gradient_of(model, positive, held=True)
    store_as_half(model.model.diffusion_model, "host casts")
    buffer = ReusedBuffer(comfy.ops.cast_bias_weight)
    monkeypatch.setattr(comfy.ops, "cast_bias_weight", buffer)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradient_of(model, positive, held=False)
    assert buffer.used
    buffer.used = 0
    assert torch.equal(gradient_of(model, positive, held=True), expected)
    assert not buffer.used


def test_nothing_is_copied_where_nothing_differs(core: Any, model: Any) -> None:
    network = model.model.diffusion_model
    before = dict(network.named_parameters())
    with core.held_weights(network, torch.float32, torch.device("cpu")):
        assert all(parameter is before[name] for name, parameter in network.named_parameters())


def test_trained_and_whole_number_weights_are_left_alone(core: Any) -> None:
    layer = torch.nn.Linear(2, 2).half()
    layer.weight.requires_grad_(True)
    layer.bias.requires_grad_(False)
    layer.register_parameter("count", torch.nn.Parameter(torch.ones(2, dtype=torch.int64), requires_grad=False))
    table = torch.nn.Embedding(3, 2).half().requires_grad_(False)
    network = torch.nn.ModuleList([layer, table])
    names = copy.copy(dict(network.named_parameters()))

    def interrupted() -> None:
        with core.held_weights(network, torch.float32, torch.device("cpu")):
            assert layer.bias.dtype == torch.float32
            assert layer.weight.dtype == table.weight.dtype == torch.float16
            assert layer.count.dtype == torch.int64
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(names[name] is parameter for name, parameter in network.named_parameters())
