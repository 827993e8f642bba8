"""Weights of the host's diffusion network in training: float32 copies that stand in for the originals for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


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


@contextmanager
def trained_weights(
    network: torch.nn.Module, selected: Callable[[str], bool], compute_dtype: torch.dtype
) -> Iterator[TrainedWeights]:
    """Train some of a network's weights while the block runs.

    Parameters
    ----------
    network, selected, compute_dtype
        As for `TrainedWeights`.

    Yields
    ------
    TrainedWeights
    """
    weights = TrainedWeights(network, selected, compute_dtype)
    try:
        yield weights
    finally:
        weights.restore()
