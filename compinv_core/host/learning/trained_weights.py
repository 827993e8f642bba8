"""Weights of the host's diffusion network in training, and what is made of them: patches and a LoRA.

For a while float32 copies stand in the place of the originals, or thin factors beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import comfy.lora
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, Upsample

from ...learning.lora_file import NETWORK_PREFIX, factor_lora, full_difference_lora, low_rank_lora
from ...learning.settings import InversionConfig
from ...training.events import reported
from ...training.low_rank import Layer, LowRank, initial_factors, low_rank_output
from ..family import Family
from ..progress import host_listener

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

_BLOCKS = (ResBlock, SpatialTransformer, Downsample, Upsample)
_WEIGHT = ".weight"

Patches = dict[str, Any]
Tensors = dict[str, torch.Tensor]


class TrainedWeights:
    """Float32 copies of some of a network's weights, in the place of the originals.

    Where the network computes in float32 the copies are its parameters. Where it computes in less, each forward pass
    gets casts of them, since updates of a training are too small for half precision.

    Parameters
    ----------
    network : torch.nn.Module
        Holds the copies until `restore`.
    selected : callable (name of a parameter) -> bool
    compute_dtype : torch.dtype
        What the network computes in.
    """

    def __init__(self, network: torch.nn.Module, selected: Callable[[str], bool], compute_dtype: torch.dtype) -> None:
        self._dtype = compute_dtype
        self._originals: dict[str, torch.nn.Parameter] = {}
        self._places: dict[str, tuple[torch.nn.Module, str]] = {}
        self.parameters: dict[str, torch.nn.Parameter] = {}
        for path, module in network.named_modules():
            for name, original in module._parameters.items():
                full = f"{path}.{name}" if path else name
                if original is not None and original.is_floating_point() and selected(full):
                    self._originals[full], self._places[full] = original, (module, name)
                    values = original.detach().to(torch.float32, copy=True)
                    self.parameters[full] = torch.nn.Parameter(values)
                    module._parameters[name] = self.parameters[full]

    def place_casts(self) -> None:
        """Renew the casts that the next forward and backward pass use; nothing to do in float32."""
        if self._dtype == torch.float32:
            return
        for full, (module, name) in self._places.items():
            # As in torch.func.functional_call: a result of the parameter stands where the parameter would.
            module._parameters[name] = self.parameters[full].to(self._dtype)  # pyright: ignore[reportArgumentType]

    @torch.no_grad()
    def differences(self) -> dict[str, torch.Tensor]:
        """Return what the training changed, ``trained - original``.

        Returns
        -------
        dict of str to Tensor
            float32, CPU.
        """
        return {
            name: (parameter.detach() - self._originals[name].detach().float()).cpu()
            for name, parameter in self.parameters.items()
        }

    @torch.no_grad()
    def values(self) -> dict[str, torch.Tensor]:
        """Return the trained weights in the precision that the model is stored in, or float16 where that is less.

        Returns
        -------
        dict of str to Tensor
            CPU.
        """
        stored = {}
        for name, parameter in self.parameters.items():
            dtype = self._originals[name].dtype
            dtype = dtype if dtype.itemsize >= torch.float16.itemsize else torch.float16
            stored[name] = parameter.detach().to("cpu", dtype, copy=True)
        return stored

    def restore(self) -> None:
        """Put the originals back, the very same objects."""
        for full, (module, name) in self._places.items():
            module._parameters[name] = self._originals[full]


class LowRankWeights:
    """Factors of low rank beside some of a network's weights, which stay as they are.

    They act on the outputs of their layers, so that no changed weight is ever written out. Norms and biases, which have
    no such form, are not trained.

    Parameters
    ----------
    network : torch.nn.Module
        Its layers give other outputs until `restore`.
    selected : callable (name of a parameter) -> bool
        Of the weights that are trained where they have a low-rank form; see `low_rank_layers`.
    low_rank : LowRank
    """

    def __init__(self, network: torch.nn.Module, selected: Callable[[str], bool], low_rank: LowRank) -> None:
        self.parameters: dict[str, torch.nn.Parameter] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._layers = low_rank_layers(network, selected)
        generator = torch.Generator().manual_seed(low_rank.seed)
        for name, layer in self._layers.items():
            factors = initial_factors(layer.weight.shape, low_rank.rank, generator)
            down, up = (torch.nn.Parameter(factor.to(layer.weight.device)) for factor in factors)
            self.parameters |= {f"{name}.down": down, f"{name}.up": up}
            self._handles.append(layer.register_forward_hook(partial(_with_factors, down, up)))

    def place_casts(self) -> None:
        """Do nothing: layers cast their factors themselves."""

    def factors(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return the trained factors.

        Returns
        -------
        dict of str to (Tensor, Tensor)
            By the names of their layers in the network: ``down`` and ``up``, float32, CPU.
        """
        copies = {name: factor.detach().to("cpu", copy=True) for name, factor in self.parameters.items()}
        return {name: (copies[f"{name}.down"], copies[f"{name}.up"]) for name in self._layers}

    def restore(self) -> None:
        """Let the layers give their own outputs again."""
        for handle in self._handles:
            handle.remove()


def _with_factors(
    down: torch.Tensor, up: torch.Tensor, layer: Layer, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
) -> torch.Tensor:
    return output + low_rank_output(layer, inputs[0], down, up)


def low_rank_layers(network: torch.nn.Module, selected: Callable[[str], bool]) -> dict[str, Layer]:
    """Return the layers of a diffusion network that are trained by factors, by name, in the network's order.

    Matrices and convolutions of the residual and transformer blocks and between the levels. The few layers outside of
    these (first and last convolution, embeddings of time and size, less than a hundredth of the weights) are left out,
    as programs do that train LoRAs: not every reader knows them.

    Parameters
    ----------
    selected : callable (name of a parameter) -> bool
    """
    return {
        name: layer
        for path, block in network.named_modules()
        if isinstance(block, _BLOCKS)
        for name, layer in block.named_modules(prefix=path)
        if isinstance(layer, Layer) and selected(name + _WEIGHT)
    }


Weights = TrainedWeights | LowRankWeights


@contextmanager
def trained_weights(
    network: torch.nn.Module,
    selected: Callable[[str], bool],
    compute_dtype: torch.dtype,
    low_rank: LowRank | None = None,
) -> Iterator[Weights]:
    """Train some of a network's weights while the block runs.

    Parameters
    ----------
    network, selected, compute_dtype
        As for `TrainedWeights`.
    low_rank : LowRank, optional
        Trains factors of the selected weights; None trains these themselves.

    Yields
    ------
    TrainedWeights or LowRankWeights
    """
    if low_rank is None:
        weights = TrainedWeights(network, selected, compute_dtype)
    else:
        weights = LowRankWeights(network, selected, low_rank)
    try:
        yield weights
    finally:
        weights.restore()


def outcome_of(weights: Weights, config: InversionConfig, model: ModelPatcher) -> tuple[Patches, Tensors]:
    """Return the patches that make the trained model of `model`, and the LoRA, as the method and its rank have it.

    Returns
    -------
    patches : dict
        For ``ModelPatcher.add_patches``; empty where only words were trained.
    lora : dict of str to Tensor
        CPU.
    """
    if isinstance(weights, LowRankWeights):
        return _factors(weights, config, model)
    if config.method.outcome == "differences":
        return _differences(weights)
    if config.method.outcome == "values":
        return _values(weights, config.lora_rank)
    return {}, {}


def _factors(weights: LowRankWeights, config: InversionConfig, model: ModelPatcher) -> tuple[Patches, Tensors]:
    factors, inner = weights.factors(), model.model
    family = Family.of(config.method.node_name, model)
    lora = factor_lora(factors, family.lora_modules(inner.model_config.unet_config, factors))
    # The host's own reading of the file, so that model and file cannot differ.
    return comfy.lora.load_lora(lora, comfy.lora.model_lora_keys_unet(inner, {})), lora


def _differences(weights: TrainedWeights) -> tuple[Patches, Tensors]:
    differences = weights.differences()
    patches: Patches = {NETWORK_PREFIX + name: ("diff", (value,)) for name, value in differences.items()}
    return patches, full_difference_lora(differences)


def _values(weights: TrainedWeights, rank: int) -> tuple[Patches, Tensors]:
    patches: Patches = {NETWORK_PREFIX + name: ("set", (value,)) for name, value in weights.values().items()}
    differences = reported("cutting down to the rank", weights.differences().items(), host_listener())
    return patches, low_rank_lora(differences, rank)
