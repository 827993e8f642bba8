"""Muon with AdamW: what trains the miniature world's networks in an hour on two cores.

Muon (K. Jordan, 2024, https://kellerjordan.github.io/posts/muon/) takes the momentum of each matrix to the nearest
orthogonal one by five Newton-Schulz steps. Library versions take matrices only and one at a time; here a convolution is
a stack of matrices, one a group, and equal shapes are iterated together.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Push the singular values of each matrix of a stack (N, R, C) towards 1, float32."""
    a, b, c = NEWTON_SCHULZ
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.transpose(1, 2)
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.transpose(1, 2)


class Muon(torch.optim.Optimizer):
    """Muon for the inner matrices and convolutions of a network, AdamW for everything else.

    Parameters
    ----------
    network
        Its parameters of two or more dimensions with at least 64 inputs and 64 outputs go to Muon. Those that need no
        gradient stay as they are.
    lr
        Learning rate of both, in AdamW's units (Muon's updates are scaled to the same root mean square, 0.2).
    """

    def __init__(self, network: nn.Module, lr: float, weight_decay: float = 0.01, momentum: float = 0.95) -> None:
        matrices, others = [], []
        groups_of = {id(m.weight): m.groups for m in network.modules() if isinstance(m, nn.Conv2d)}
        for p in network.parameters():
            if not p.requires_grad:
                continue
            inner = p.ndim >= 2 and p.shape[0] >= 64 and p[0].numel() >= 64
            (matrices if inner else others).append(p)
        self._groups_of = groups_of
        super().__init__(
            [{"params": matrices, "muon": True}, {"params": others, "muon": False}],
            {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": (0.9, 0.98)},
        )

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            (self._step_muon if group["muon"] else self._step_adamw)(group)

    def _step_muon(self, group: dict) -> None:
        by_shape: dict[tuple, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for p in group["params"]:
            buffer = self.state[p].setdefault("momentum", torch.zeros_like(p, memory_format=torch.contiguous_format))
            buffer.mul_(group["momentum"]).add_(p.grad)
            update = p.grad.add(buffer, alpha=group["momentum"])
            count = self._groups_of.get(id(p), 1)
            by_shape[(count, *p.shape)].append((p, update.reshape(count, p.shape[0] // count, -1)))
        for pairs in by_shape.values():
            updates = orthogonalise(torch.cat([u for _, u in pairs]))
            scale = 0.2 * max(updates.shape[1:]) ** 0.5
            for (p, _), update in zip(pairs, updates.chunk(len(pairs)), strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update.reshape(p.shape), alpha=-group["lr"] * scale)

    def _step_adamw(self, group: dict) -> None:
        b1, b2 = group["betas"]
        for p in group["params"]:
            state = self.state[p]
            if not state:
                state.update(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
            state["step"] += 1
            state["mean"].lerp_(p.grad, 1 - b1)
            state["square"].mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
            mean = state["mean"] / (1 - b1 ** state["step"])
            square = state["square"] / (1 - b2 ** state["step"])
            p.addcdiv_(mean, square.sqrt().add_(1e-8), value=-group["lr"])
